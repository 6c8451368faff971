import os
import subprocess

import pytest

from thinking_rl.model.weights import CheckpointReader, save_released


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full(tiny_checkpoint, tmp_path):
    reader = CheckpointReader(tiny_checkpoint)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(OSError, match="could not write the weights"):
            save_released(
                ((name, reader.read(name)) for name in reader.names()),
                tmp_path / "out",
                shard_gib=0.001,
            )
        assert list((tmp_path / "out").iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
