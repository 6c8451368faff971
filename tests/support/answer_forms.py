# ruff: noqa: E501
r"""Pairs of an expected answer and a response, by form: right, wrong, and near misses.

Templates are filled with drawn numbers: `@n`, `@m` (two digits, different), `@k` (2 to 9), `@s`
(n + m), `@p` (n * k), `@T` (five digits), `@A`, `@B`, `@C` (T in groups: `12,345`, `12{,}345`...),
`@L`, `@M` (different letters of A to E), `@l`, `@o` (their options' texts). A row whose form is a
choice has the options that `OPTIONS` gives.
"""

import random
from typing import NamedTuple

from fresh_answer_forms import FRESH, Pairs

OPTIONS = ("12 cm", r"$\frac{3}{7}$", "a kite", "2019", r"$5\sqrt{3}$")
SELF = ("A", "B", "C", "D", "E")
NAMES = ("P", "Q", "R", "S", "T")


class Row(NamedTuple):
    form: str
    kind: str
    """right, wrong or near (a near miss, also wrong)."""
    gold: str
    response: str
    choices: tuple[str, ...] = ()


FORMS: dict[str, tuple[Pairs, Pairs, Pairs]] = {
    "bold and headings": (
        [("@n", "**Answer:** @n"), ("@n", "**Answer: @n**"), ("@n", "### Final Answer\n\n@n"), ("@n", "**Final Answer**\n\n**@n**"),
         ("@n", "The answer is **@n**."), ("@n", "## Answer: @n"), ("@n", "**The answer is @n.**"), ("@n", "#### **Answer:** $@n$"), ("@n", "> **Final answer:** @n")],
        [("@n", "**Answer:** @m"), ("@n", "### Final Answer\n\n@m"), ("@n", "The answer is **@m**."), ("@n", "**Final Answer**\n\n**@m**")],
        [("@n", "**Answer:** @n or @m"), ("@n", "### Final Answer\n\n@n, @m"), ("@n", "**Answer:** not @n"), ("@n", "The answer is **@n** or **@m**."), ("@n", "**Answer: -@n**")],
    ),
    "statement as a sentence": (
        [("@n", "The answer is @n because each row has @k seats."), ("@n", "So the final answer is @n, since @k divides it."), ("@n", "The answer is @n."),
         ("@n", "The answer is:\n\n$$@n$$"), ("@n", "The answer is\n\\[\n@n\n\\]"), ("@n", "Thus, the answer is $@n$, which is what we wanted."), ("@n", "The final answer is therefore @n."),
         ("@n", "The answer to the question is @n.")],
        [("@n", "The answer is @m because each row has @k seats."), ("@n", "The answer is:\n\n$$@m$$"), ("@n", "The final answer is @m.")],
        [("@n", "The answer is not @n because each row has @k seats."), ("@n", "The answer is @n or @m."), ("@n", "The answer isn't @n."), ("@n", "Perhaps the answer is @n, perhaps @m."),
         ("@n", "The answer is either @n or @m."), ("@n", "The answer could be @n?")],
    ),
    "several statements": (
        [("@n", "First I thought the answer is @m. That was a slip. The answer is @n."), ("@n", "Answer: @m\nCorrection.\nAnswer: @n"), ("@n", "The answer is @m for one row. For all rows the answer is @n.")],
        [("@n", "First I thought the answer is @n. That was a slip. The answer is @m."), ("@n", "Answer: @n\nCorrection.\nAnswer: @m"), ("@n", "The answer is @n for one row. For all rows the answer is @m.")],
        [("@n", "The answer is @m. Or the answer is @n."), ("@n", "The answer is @n. Alternatively, @m."), ("@n", "The answer is @n. It could also be @m.")],
    ),
    "box and a later final answer": (
        [("@n", "We get $\\boxed{@m}$ per row.\n\n**Final answer:** @n"), ("@n", "\\boxed{@m} is one side. So the final answer is @n."), ("@n", "The answer is @m? Let us see.\n\nThus \\boxed{@n}."),
         ("@n", "\\boxed{@n}\n\nThe answer is correct."), ("@n", "The answer is @m.\nBut with both rows: \\boxed{@n}")],
        [("@n", "We get $\\boxed{@n}$ per row.\n\n**Final answer:** @m"), ("@n", "\\boxed{@n} is one side. So the final answer is @m."), ("@n", "The answer is @n.\nBut with both rows: \\boxed{@m}")],
        [("@n", "\\boxed{@n} or \\boxed{@m}"), ("@n", "\\boxed{@n} is wrong."), ("@n", "It is not \\boxed{@n}."), ("@n", "\\boxed{@m}, perhaps \\boxed{@n}"), ("@n", "\\boxed{@n}? No.")],
    ),
    "last line as a whole": (
        [("@n\\pi", "So we find\n@n$\\pi$"), ("-@n", "We subtract.\n-$@n$"), ("@n", "There are $@n$ apples."), ("@n cm", "The side is $@n$ cm."), ("@n", "Hence she has @n apples left."),
         ("@n\\pi", "The area is @n$\\pi$."), ("@n\\sqrt{@k}", "Its length is @n$\\sqrt{@k}$ cm."), ("@p", "In all that makes @n * @k = @p apples."), ("@n \\text{ cm}^2", "The area is $@n$ cm$^2$."), ("@n", "It takes @n days to paint the fence."), ("@n", "Tom has @n marbles in total."), ("@n", "Hence, **@n** marbles are left."), ("@n", "<answer>@n</answer>")],
        [("@n\\pi", "So we find\n@m$\\pi$"), ("@n", "There are $@m$ apples."), ("@n cm", "The side is $@m$ cm."), ("@p", "In all that makes @n + @k = @s apples.")],
        [("\\pi", "So we find\n@n$\\pi$"), ("@n", "We subtract.\n-$@n$"), ("@n cm", "The side is $@n$ m."), ("@n", "There are $@n$ or $@m$ apples."), ("@n", "It isn't $@n$."), ("@n", "@n is not the number of apples."), ("@n", "@m = @n"), ("@n", "Both films are an hour and @n minutes long.")],
    ),
    "several boxes": (
        [("@n, @m", "\\boxed{@n} \\quad \\boxed{@m}"), ("@n, @m", "(a) \\boxed{@n}\n\n(b) \\boxed{@m}"), ("@n, @m, @k", "\\boxed{@n}, \\boxed{@m}, \\boxed{@k}"), ("@n, @m", "The roots are \\boxed{@m} together with \\boxed{@n}."),
         ("@n, @m", "$x = \\boxed{@n}$\\\\\n$y = \\boxed{@m}$"), ("@n", "\\boxed{@n}, once more: \\boxed{@n}"), ("@n, @m", "Part (a): x = \\boxed{@n}. Part (b): therefore \\boxed{@m}.")],
        [("@n, @m", "\\boxed{@n} \\quad \\boxed{@s}"), ("@n, @m", "\\boxed{@n}"), ("@n, @m, @k", "\\boxed{@n}, \\boxed{@m}")],
        [("@n", "\\boxed{@n} \\quad \\boxed{@m}"), ("@n", "(a) \\boxed{@n}\n\n(b) \\boxed{@m}"), ("@n", "\\boxed{@m}\n\\boxed{@n}"), ("@n", "\\boxed{@m} \\boxed{@k} \\boxed{@n}"), ("@n, @m", "\\boxed{@n}, \\boxed{@m}, \\boxed{@k}")],
    ),
    "thousands": (
        [("@T", "\\boxed{@A}"), ("@T", "\\boxed{@B}"), ("@T", "\\boxed{@C}"), ("@T", "\\boxed{@D}"), ("@T", "\\boxed{@E}"), ("@A", "\\boxed{@T}"), ("@T", "\\boxed{\\$@A.00}"), ("@T", "\\boxed{@E\\text{ ways}}")],
        [("@T", "\\boxed{@A0}"), ("@T", "\\boxed{1@B}"), ("@T", "\\boxed{@E.5}"), ("@T", "\\boxed{@T,000}")],
        [("@T", "\\boxed{@A, @n}"), ("@T", "\\boxed{@T million}"), ("@T", "\\boxed{@T thousand}"), ("@n", "\\boxed{@n,@m}")],
    ),
    "spacing commands": (
        [("@n", "\\boxed{@n\\,}"), ("@n", "\\boxed{@n\\ }"), ("@n", "\\boxed{@n\\;}"), ("@n", "\\boxed{@n\\quad}"), ("@n", "\\boxed{\\hspace{2mm}@n~}"), ("@n", "\\boxed{@n\\!}"), ("\\frac{@n}{@m}", "\\boxed{\\frac{@n}{@m}\\,}"), ("@n", "\\boxed{@n\\\\}")],
        [("@n", "\\boxed{@m\\,}"), ("@n", "\\boxed{@m\\quad}"), ("@n", "\\boxed{@n\\,@k}")],
        [("@n", "\\boxed{@n\\quad @m}"), ("@n", "\\boxed{@n\\\\@m}"), ("@n", "\\boxed{@n\\,,@m}")],
    ),
    "full-width characters": (
        [("@n", "\\boxed{@F}"), ("(@n, @m)", "\\boxed{（@n，@m）}"), ("@n:@m", "\\boxed{@n：@m}"), ("x=@n", "\\boxed{ｘ＝@F}"), ("@n%", "\\boxed{@n％}"), ("@n+@kx", "\\boxed{@n＋@kx}")],
        [("@n", "\\boxed{@G}"), ("(@n, @m)", "\\boxed{（@m，@n）}"), ("@n:@m", "\\boxed{@m：@n}")],
        [("@n", "\\boxed{@F，@G}"), ("@n", "\\boxed{@F或@G}"), ("@n", "\\boxed{不是@F}")],
    ),
    "fonts and colours": (
        [("@n", "\\boxed{\\textnormal{@n}}"), ("@n", "\\boxed{\\underline{@n}}"), ("@n", "\\boxed{\\color{red}{@n}}"), ("@n", "\\boxed{\\color{blue} @n}"), ("@n", "\\boxed{\\textcolor{red}{@n}}"), ("\\frac{@k}{@n}", "\\boxed{\\nicefrac{@k}{@n}}"),
         ("@n", "\\boxed{\\text{\\textbf{@n}}}"), ("@n", "\\boxed{@n \\text{ square units}}"), ("@n", "\\boxed{\\boldsymbol{@n}}"), ("0.@n", "\\boxed{\\Pr(X) = 0.@n}"), ("@n \\text{ cm}", "\\boxed{\\text{@n \\textnormal{cm}}}")],
        [("@n", "\\boxed{\\textnormal{@m}}"), ("@n", "\\boxed{\\color{red}{@m}}"), ("\\frac{@k}{@n}", "\\boxed{\\nicefrac{@n}{@k}}"), ("0.@n", "\\boxed{\\Pr(X) = 0.@m}")],
        [("@n", "\\boxed{\\text{@n or @m}}"), ("@n", "\\boxed{\\underline{@n}, \\underline{@m}}"), ("@n", "\\boxed{\\cancel{@n}}"), ("@n", "\\boxed{\\text{not }@n}"), ("@n", "\\boxed{\\color{red}{@n}\\color{blue}{@m}}"), ("@n \\text{ cm}", "\\boxed{@n \\text{ square cm}}")],
    ),
    "floats and powers of ten": (
        [("0.3", "\\boxed{0.30000000000000004}"), ("\\frac{100}{3}", "\\boxed{33.333333333333336}"), ("\\frac{1}{7}", "\\boxed{0.14285714285714285}"), ("\\sqrt{2}", "\\boxed{1.4142135623730951}"), ("0.00@n", "\\boxed{@n \\times 10^{-4}}"),
         ("\\frac{1}{300}", "\\boxed{3.33333 \\times 10^{-3}}"), ("@n000", "\\boxed{@n \\times 10^3}"), ("0.7", "\\boxed{0.7000000000000001}"), ("\\frac{2}{3}", "\\boxed{0.6666666666666666}"), ("0.0@n", "\\boxed{@n.0 \\cdot 10^{-3}}"), ("\\pi", "\\boxed{3.141592653589793}"), ("2.675", "\\boxed{2.6749999999999998}"), ("\\frac{1}{7000}", "\\boxed{1.428571 \\times 10^{-4}}")],
        [("0.3", "\\boxed{0.30000000000400004}"), ("\\frac{100}{3}", "\\boxed{33.333334333333336}"), ("0.00@n", "\\boxed{@n \\times 10^{-3}}"), ("@n000", "\\boxed{@n \\times 10^2}")],
        [("0.3", "\\boxed{0.300001}"), ("\\frac{1}{3}", "\\boxed{0.33}"), ("\\frac{1}{300}", "\\boxed{3.33 \\times 10^{-3}}"), ("\\sqrt{2}", "\\boxed{1.41421}".replace("1.41421", "1.4142")), ("0.@n", "\\boxed{0.@n0001}"), ("@n000", "\\boxed{@n \\times 10^3 + 1}"), ("0.0@n", "\\boxed{0.0@n1}"), ("0.@n", "\\boxed{0.@n or 0.@m}")],
    ),
    "degrees inside functions": (
        [("\\frac{1}{2}", "\\boxed{\\sin 30^\\circ}"), ("\\cos 40^\\circ", "\\boxed{\\sin 50^\\circ}"), ("\\sin @n^\\circ", "\\boxed{\\sin(@n°)}"), ("1", "\\boxed{\\tan 45^{\\circ}}"), ("\\sin(2 \\cdot @k^\\circ)", "\\boxed{2\\sin @k^\\circ\\cos @k^\\circ}"),
         ("\\frac{\\sqrt{3}}{2}", "\\boxed{\\cos(30^\\circ)}"), ("@k\\sin @n^\\circ", "\\boxed{@k \\sin{@n^\\circ}}")],
        [("\\frac{1}{2}", "\\boxed{\\sin 60^\\circ}"), ("\\sin @n^\\circ", "\\boxed{\\cos @n^\\circ}".replace("@n^", "@n^")), ("\\sin @n^\\circ", "\\boxed{\\sin @s^\\circ}"), ("\\tan @n^\\circ", "\\boxed{\\tan @m^\\circ}"), ("\\cos @n^\\circ", "\\boxed{-\\cos @n^\\circ}")],
        [("\\frac{1}{2}", "\\boxed{\\sin 30}"), ("\\sin @n^\\circ", "\\boxed{\\sin @n}"), ("\\sin @n^\\circ", "\\boxed{@n^\\circ}"), ("1", "\\boxed{\\tan 45}")],
    ),
    "identities": (
        [("\\sqrt[3]{x}", "\\boxed{x^{1/3}}"), ("2\\ln x", "\\boxed{\\ln x^2}"), ("\\ln(@nx)", "\\boxed{\\ln @n + \\ln x}"), ("\\ln(x-@k)+\\ln @n", "\\boxed{\\ln(@nx-@p)}"), ("(x+@k)^2", "\\boxed{x^2+2\\cdot @k x+@k^2}"), ("x^{2/3}", "\\boxed{\\sqrt[3]{x^2}}"),
         ("\\log_2(x^@k)", "\\boxed{@k\\log_2 x}"), ("\\sqrt{@nx}", "\\boxed{\\sqrt{@n}\\sqrt{x}}"), ("\\sqrt{x-@n}", "\\boxed{(x-@n)^{1/2}}")],
        [("\\sqrt[3]{x}", "\\boxed{x^{1/2}}"), ("2\\ln x", "\\boxed{(\\ln x)^2}"), ("\\ln(@nx)", "\\boxed{@n\\ln x}"), ("(x+@k)^2", "\\boxed{x^2+@k^2}")],
        [("|x|", "\\boxed{x}"), ("\\ln(@nx)", "\\boxed{\\ln @n \\cdot \\ln x}"), ("x^{2/3}", "\\boxed{x^{3/2}}"), ("\\sqrt{x^2+@n}", "\\boxed{x+\\sqrt{@n}}")],
    ),
    "labels on the left": (
        [("@n", "\\boxed{|AB| = @n}"), ("@n", "\\boxed{f(@k) = @n}"), ("0.@n", "\\boxed{P(A \\cap B) = 0.@n}"), ("@n", "\\boxed{\\frac{AB}{CD} = @n}"), ("1", "\\boxed{7^{100} \\bmod 10 = 1}"), ("@n", "\\boxed{\\text{Area} = @n}"),
         ("@n", "\\boxed{S_{\\triangle ABC} = @n}"), ("@n^\\circ", "\\boxed{\\angle ABC = @n^\\circ}"), ("x^2+@n", "\\boxed{f(x) = x^2+@n}"), ("@n:@m", "\\boxed{AB:CD = @n:@m}"), ("@s", "\\boxed{@n + @m = @s}"), ("\\frac{@k}{@n}", "\\boxed{\\sin A = \\frac{@k}{@n}}"), ("@n", "\\boxed{x = y = @n}")],
        [("@n", "\\boxed{|AB| = @m}"), ("0.@n", "\\boxed{P(A \\cap B) = 0.@m}"), ("@n", "\\boxed{\\frac{AB}{CD} = @m}"), ("x^2+@n", "\\boxed{f(x) = x^2+@m}")],
        [("@n", "\\boxed{@m = @n}"), ("@n", "\\boxed{@n = @m}"), ("@n", "\\boxed{@m \\approx @n}"), ("@n", "\\boxed{@m \\to @n}"), ("@n", "\\boxed{@n \\Rightarrow @m}"), ("@n", "\\boxed{x = @n = @m}"), ("@n", "\\boxed{@kx = @n}"), ("@n", "\\boxed{x \\ne @n}"), ("2", "\\boxed{7^{100} \\bmod 10 = 2}"), ("@n", "\\boxed{x \\in \\{@n, @m\\}}")],
    ),
    "bases": (
        [("101101_2", "\\boxed{101101_{2}}"), ("@n_{12}", "\\boxed{@n_{12}}"), ("101101_2", "\\boxed{101101_{\\text{two}}}"), ("101101_2", "\\boxed{(101101)_2}"), ("101101_2", "\\boxed{101101}"), ("101101", "\\boxed{101101_2}"), ("2A_{16}", "\\boxed{2A_{16}}"), ("101101_2", "\\boxed{101101 \\text{ base } 2}"), ("@n_{12}", "\\boxed{@n}"), ("@n_{11}", "\\boxed{@n_{\\text{11}}}")],
        [("101101_2", "\\boxed{101100_2}"), ("@n_{12}", "\\boxed{@m_{12}}"), ("101101_2", "\\boxed{2}"), ("@n_{12}", "\\boxed{@s_{12}}"), ("1@n_{11}", "\\boxed{1@m_{11}}"), ("101@k_8", "\\boxed{110@k_8}")],
        [("101101_2", "\\boxed{101101_3}"), ("101101_2", "\\boxed{45}"), ("@n_{12}", "\\boxed{@n_{13}}"), ("45", "\\boxed{101101_2}"), ("1@n_{11}", "\\boxed{1@n_{12}}"), ("@n_{12}", "\\boxed{@n_{12} \\text{ or } @m_{12}}"), ("@n", "\\boxed{@n_{13}}")],
    ),
    "ratios of three": (
        [("@n:@m:@k", "\\boxed{@n:@m:@k}"), ("1:2:@k", "\\boxed{@k:2\\cdot @k:@k^2}".replace("2\\cdot @k", "2\\cdot @k")), ("@k:@n:@m", "\\boxed{@k : @n : @m}"), ("2:3:4", "\\boxed{4:6:8}"), ("1:\\sqrt{3}:2", "\\boxed{1:\\sqrt3:2}"), ("@n:@m:@k", "\\boxed{a:b:c = @n:@m:@k}"), ("1:2:3", "\\boxed{\\frac{1}{2}:1:\\frac{3}{2}}"), ("@n:@m", "\\boxed{\\frac{@n}{@m}}")],
        [("@n:@m:@k", "\\boxed{@m:@n:@k}"), ("2:3:4", "\\boxed{2:3:5}"), ("1:2:3", "\\boxed{3:2:1}"), ("@n:@m:@k", "\\boxed{@n:@k:@m}"), ("1:@n:@m", "\\boxed{1:@m:@n}")],
        [("1:2:3", "\\boxed{1:6}"), ("1:2:3", "\\boxed{\\frac{1}{6}}"), ("@n:@m:@k", "\\boxed{@n:@m}"), ("1:2:3", "\\boxed{1,2,3}"), ("@n:@m:@k", "\\boxed{@n:@m:@k:1}"), ("@n:@m:@k", "\\boxed{@n:@m:@k \\text{ or } @k:@m:@n}"), ("@n:@m:@k", "\\boxed{@n, @m, @k}")],
    ),
    "sets with repeats": (
        [("\\{@n, @m\\}", "\\boxed{\\{@n, @m, @n\\}}"), ("\\{@n\\}", "\\boxed{\\{@n, @n\\}}"), ("\\{@k, @n, @m\\}", "\\boxed{\\{@m, @n, @m, @k\\}}"), ("\\{@n, @m\\}", "\\boxed{\\{@m, @n\\}}")],
        [("\\{@n, @m\\}", "\\boxed{\\{@n, @s\\}}"), ("\\{@n, @m\\}", "\\boxed{\\{@n\\}}"), ("\\{@n\\}", "\\boxed{\\{@m, @m\\}}")],
        [("\\{@n, @m\\}", "\\boxed{\\{@n, @m, @k\\}}"), ("@n", "\\boxed{\\{@n, @m\\}}"), ("(@n, @m)", "\\boxed{\\{@n, @m\\}}"), ("(@n, @n)", "\\boxed{@n}")],
    ),
    "factorials of variables": (
        [("n!", "\\boxed{n \\cdot (n-1)!}"), ("n!", "\\boxed{n!}"), ("\\frac{n!}{@k}", "\\boxed{\\frac{1}{@k}n!}"), ("(n+1)!", "\\boxed{(n+1)n!}"), ("\\frac{(n+2)!}{n!}", "\\boxed{(n+1)(n+2)}"), ("@n n!", "\\boxed{@n \\cdot n!}"), ("\\binom{n}{2}", "\\boxed{\\frac{n(n-1)}{2}}")],
        [("n!", "\\boxed{(n-1)!}"), ("n!", "\\boxed{n}"), ("\\frac{n!}{@k}", "\\boxed{\\frac{(n-1)!}{@k}}"), ("@n n!", "\\boxed{@m n!}"), ("n!+@n", "\\boxed{n!+@m}"), ("\\binom{n}{@k}", "\\boxed{\\binom{n+1}{@k}}")],
        [("n!", "\\boxed{n^n}"), ("(n+1)!", "\\boxed{n!+1}"), ("@n n!", "\\boxed{(@n n)!}"), ("n!", "\\boxed{n!!}"), ("n!+@n", "\\boxed{n!+@n!}"), ("\\frac{n!}{@n}", "\\boxed{\\frac{n}{@n}!}"), ("n!", "\\boxed{n! \\text{ or } (n-1)!}")],
    ),
    "times with seconds": (
        [("3:@n:15", "\\boxed{3:@n:15}"), ("10:05:30", "\\boxed{10:05:30 \\text{ am}}"), ("15:20:@q", "\\boxed{3:20:@q pm}"), ("02:07:09", "\\boxed{2:07:09}"), ("7:@q:00", "\\boxed{7:@q}")],
        [("3:@q:15", "\\boxed{3:@q:16}"), ("15:20:@q", "\\boxed{15:21:@q}"), ("7:@q:00", "\\boxed{8:@q}")],
        [("15:20:@q", "\\boxed{3:20:@q am}"), ("3:@q:15", "\\boxed{3:@q}"), ("7:@q:00", "\\boxed{7:@q:00 or 8:@q:00}")],
    ),
    "units": (
        [("@n cm", "\\boxed{@n}"), ("@n", "\\boxed{@n \\text{ red apples}}"), ("@n m", "\\boxed{@n00 \\text{ cm}}"), ("@n", "\\boxed{@n \\text{ square units}}"), ("@n", "\\boxed{\\text{exactly } @n}"), ("@n000000", "\\boxed{@n \\text{ million}}"), ("@n", "\\boxed{@n \\text{ ways to sit}}"), ("@n", "There are @n ways to arrange them.")],
        [("@n cm", "\\boxed{@m \\text{ cm}}"), ("@n m", "\\boxed{@n \\text{ cm}}"), ("@n", "\\boxed{@m \\text{ red apples}}")],
        [("@n", "\\boxed{@n \\text{ million}}"), ("@n", "\\boxed{@n \\text{ plus one}}"), ("@n", "\\boxed{@n \\text{ dozen}}"), ("@n", "\\boxed{@n \\text{ not}}"), ("@n", "\\boxed{@n \\text{ is wrong}}"), ("@n", "\\boxed{@n \\text{ squared}}"), ("@n", "\\boxed{@n \\text{ and a half}}"), ("@n", "\\boxed{\\text{all but } @n}")],
    ),
    "hedges": (
        [("@n", "\\boxed{@n}"), ("@n, @m", "\\boxed{@n \\text{ or } @m}"), ("\\pm @n", "\\boxed{@n, -@n}"), ("6+\\pi", "\\boxed{6+\\pi \\approx 9.14}"), ("\\sqrt{@n}", "\\boxed{\\sqrt{@n}}"), ("@s", "\\boxed{@s = @n + @m}")],
        [("@n", "\\boxed{@m}"), ("@n, @m", "\\boxed{@n}"), ("\\pm @n", "\\boxed{@n}")],
        [("@n", "\\boxed{@n, @m}"), ("@n", "\\boxed{@n \\text{ or } @m}"), ("@n", "\\boxed{@n / @m}"), ("@n", "\\boxed{@n \\; (@m)}"), ("@n", "\\boxed{@n \\text{ (maybe } @m)}"), ("@n", "\\boxed{@n; @m}"), ("@n", "\\boxed{@n \\lor @m}"), ("@n", "\\boxed{\\pm @n}"), ("@n", "\\boxed{[@n, @m]}"),
         ("@n", "\\boxed{@n \\mid @m}"), ("@n", "\\boxed{\\text{perhaps } @n}"), ("@n", "\\boxed{@n \\cup @m}"), ("@n", "\\boxed{\\begin{cases}@n\\\\@m\\end{cases}}"), ("@n", "\\boxed{\\neg @n}"), ("@n", "@n or @m"), ("@n", "It is @n, @m or @s."), ("@n", "\\boxed{@n} (or @m)"), ("@n", "\\boxed{@n}, or maybe @m"), ("@n", "anything but \\boxed{@n}"), ("@n", "\\boxed{@n} unless it is \\boxed{@m}"), ("@n", "Case 1: \\boxed{@m}. Case 2: \\boxed{@n}."), ("@n", "\\boxed{\\text{at least } @n}"), ("@n", "\\boxed{@n \\text{ to } @m}"), ("@n", "\\boxed{@n \\equiv @m}"), ("@n", "The answer is @n, @m or @s."), ("@n", "The answer is @n = @m."), ("@n", "Either @n or @m.")],
    ),
    "too large": (
        [("2^{100}", "\\boxed{2^{100}}"), ("7^{7^{7^{7}}}", "\\boxed{7^{7^{7^7}}}"), ("x^3+x^2+x^@k", "\\boxed{x^@k+x^2+x^3}"), ("x^4+2x^3+x^2+@n", "\\boxed{@n+x^2+2x^3+x^4}"), ("1000000!", "\\boxed{1000000!}"), ("@n^{2^{3}}", "\\boxed{@n^8}"), ("x^9+@n x^8+x^7", "\\boxed{x^7+@n x^8+x^9}")],
        [("@n", "\\boxed{2^{100}}"), ("x^3+x^2+x^@k", "\\boxed{x^3+x^2-x^@k}"), ("x^9+@n x^8+x^7", "\\boxed{x^7+@m x^8+x^9}"), ("@n^{2^{3}}", "\\boxed{@n^6}")],
        [("@n", "\\boxed{9^{9^{9^{9}}}}"), ("@n", "\\boxed{1000000!}"), ("@n", "\\boxed{@n + 0 \\cdot 1000000!}"), ("@n", "\\boxed{@n^{10^{10^{10}}}}")],
    ),
    "choices in words": (
        [("@L", "Option @L is correct."), ("@L", "@L is the correct answer."), ("@L", "We compare.\n**@L**"), ("@L", "The answer is @L because it fits."), ("@L", "\\boxed{@L: @l}"), ("@L", "So the answer is (@L) @l."), ("@L", "\\boxed{@l}"), ("@L", "I choose @L"), ("@L", "The correct option is @L."), ("@L", "\\boxed{\\text{(@L)}}"), ("@L", "**Answer: @L**"), ("@L", "\\boxed{@W}"),
         ("@L", "@M is too small, so it must be (@L)."), ("@L", "It is @L, not @M."), ("@L", "答案是@L。"), ("@L", "故选@L"), ("@L", "因此选 (@L)。"), ("@L", "答：@L")],
        [("@L", "Option @M is correct."), ("@L", "@M is the correct answer."), ("@L", "We compare.\n**@M**"), ("@L", "\\boxed{@o}"), ("@L", "故选@M"), ("@L", "答案是@M。")],
        [("@L", "\\boxed{@L, @M}"), ("@L", "\\boxed{@L/@M}"), ("@L", "\\boxed{@L@M}"), ("@L", "\\boxed{@L \\text{ or } @M}"), ("@L", "\\boxed{A B C D E}"), ("@L", "\\boxed{ABCDE}"), ("@L", "\\boxed{@L: @o}"), ("@L", "@L is not correct."), ("@L", "Option @L is wrong."), ("@L", "The answer is not @L."), ("@L", "The answer is @L or @M."), ("@L", "All except @L."), ("@L", "\\boxed{@L} or \\boxed{@M}"), ("@L", "(A) (B) (C) (D) (E)"), ("@L", "不选@L"), ("@L", "答案是@L或@M"), ("@L", "\\boxed{@L; @M}"), ("@L", "\\boxed{@l, @o}")],
    ),
    "options that are letters": (
        [("@L", "\\boxed{@L}"), ("@L", "The answer is @L."), ("@L", "@L"), ("@L", "Option @L is the right one.")],
        [("@L", "\\boxed{@M}"), ("@L", "The answer is @M."), ("@L", "@M")],
        [("@L", "\\boxed{@L@M}"), ("@L", "\\boxed{@L and @M}"), ("@L", "not @L"), ("@L", "Either @L or @M")],
    ),
    "options that are other letters": (
        [("@L", "\\boxed{@Y}"), ("@L", "\\boxed{@L}"), ("@L", "\\boxed{@L: @Y}"), ("@L", "The answer is @Y.")],
        [("@L", "\\boxed{@Z}"), ("@L", "The answer is @Z."), ("@L", "\\boxed{@M}")],
        [("@L", "\\boxed{@Y, @Z}"), ("@L", "\\boxed{@L: @Z}"), ("@L", "\\boxed{@Y \\text{ or } @Z}")],
    ),
    "Chinese statements": (
        [("@n", "所以答案是@n。"), ("@n", "答案：@n"), ("@n", "**答案：** @n"), ("@n", "答：@n"), ("@n", "因此答案为 $@n$。"), ("@n", "答案是@n，因为每排有@k个。"), ("\\frac{@k}{@n}", "答案为$\\frac{@k}{@n}$。")],
        [("@n", "所以答案是@m。"), ("@n", "答案：@m"), ("@n", "答：@m")],
        [("@n", "答案是@n或@m。"), ("@n", "答案不是@n。"), ("@n", "答案可能是@n，也可能是@m。"), ("@n", "答案是@n、@m。")],
    ),
}  # fmt: skip
CHOICES = {
    "choices in words": OPTIONS,
    "options that are letters": SELF,
    "options that are other letters": NAMES,
}
KINDS = ("right", "wrong", "near")
REPEATS = 4


def rows() -> list[Row]:
    """All rows; no row twice."""
    drawn: dict[Row, None] = {}
    for form in FORMS:
        for kind, first, more in zip(KINDS, FORMS[form], FRESH[form], strict=True):
            pairs = first + more
            repeats = max(REPEATS, -(-12 // len(pairs)))
            for gold, response in pairs:
                for number in range(repeats):
                    generator = random.Random(f"{form} {gold} {response} {number}")
                    values = _values(generator, CHOICES.get(form, ()))
                    filled = _fill(gold, values), _fill(response, values)
                    drawn[Row(form, kind, *filled, CHOICES.get(form, ()))] = None
    return list(drawn)


def _values(generator: random.Random, options: tuple[str, ...]) -> dict[str, str]:
    n, m = generator.sample([x for x in range(11, 60) if x % 10], 2)
    k, total = generator.choice([2, 3, 5, 6, 7]), generator.randint(10_001, 98_765)
    grouped = f"{total:,}"
    values = {"n": n, "m": m, "k": k, "s": n + m, "p": n * k, "q": generator.randint(10, 59)}
    values |= {"T": total, "A": grouped}
    for name, mark in (("B", "{,}"), ("C", ",\\!"), ("D", "\\,"), ("E", " ")):
        values[name] = grouped.replace(",", mark)
    for name, number in (("F", n), ("G", m)):
        values[name] = "".join(chr(ord(digit) + 0xFEE0) for digit in str(number))
    if options:
        first, second = generator.sample(range(len(options)), 2)
        values |= {"L": "ABCDE"[first], "M": "ABCDE"[second], "W": chr(0xFF21 + first)}
        values |= {"l": options[first], "o": options[second]}
        values |= {"Y": options[first], "Z": options[second]}
    return {name: str(value) for name, value in values.items()}


def _fill(template: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        template = template.replace(f"@{name}", value)
    return template
