def test_hostile_answers_in_a_ray_actor_thread():
    from benchmarks.grading import hostile_in_ray

    figures = hostile_in_ray()
    assert figures["changed_verdicts"] == 0
    assert figures["peak_gib"] < figures["cap_gib"]
    assert not figures["code_run"]
    assert figures["processes_left"] == 0
