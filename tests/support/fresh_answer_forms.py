# ruff: noqa: E501
r"""More pairs of the forms of `answer_forms`, written after the graders and without trying them.

What they say of a grader is therefore nearer to what it meets elsewhere. The marks are the same.
"""

Pairs = list[tuple[str, str]]

FRESH: dict[str, tuple[Pairs, Pairs, Pairs]] = {
    "bold and headings": (
        [("@n", "## Result\n\nThe answer is **@n**"), ("@n", "**Solution.** We add.\n\n**Answer: $@n$.**"), ("@n", "__Answer:__ @n"), ("@n", "*Final answer*: **@n**"), ("@n", "# Answer\n@n")],
        [("@n", "*Final answer*: **@m**"), ("@n", "__Answer:__ @m"), ("@n", "# Answer\n@m"), ("@n", "## Result\n\nThe answer is **@m**")],
        [("@n", "**Answer:** @n and @m"), ("@n", "*Final answer*: @n / @m"), ("@n", "# Answer\n@n @m"), ("@n", "**Answer:** roughly between @n and @m")],
    ),
    "statement as a sentence": (
        [("@n", "The answer is @n, as required."), ("@n", "Hence the answer must be @n."), ("@n", "The correct answer is: $@n$."), ("@n", "The final answer is $\\boxed{@n}$, because @n is the sum."), ("@n", "The answer is @n since the two rows are equal.")],
        [("@n", "Hence the answer must be @m."), ("@n", "The correct answer is: $@m$."), ("@n", "The answer is @m since @n is too small.")],
        [("@n", "The answer must be @n or more."), ("@n", "The answer is less than @n."), ("@n", "The answer is @n, or else @m."), ("@n", "The answer would be @n if it were not @m."), ("@n", "The answer is @n plus @m.")],
    ),
    "several statements": (
        [("@n", "The answer is @m. Wait, I forgot a row. The answer is @n."), ("@n", "Answer: @m (for the first part)\n\nFinal answer: @n"), ("@n", "The answer is @n. To repeat, the answer is @n."), ("@n", "One might think the answer is @m. However, the correct answer is @n.")],
        [("@n", "The answer is @n. Wait, I forgot a row. The answer is @m."), ("@n", "One might think the answer is @n. However, the correct answer is @m."), ("@n", "Answer: @n (for the first part)\n\nFinal answer: @m")],
        [("@n", "The answer is @n. Then again, it may be @m."), ("@n", "The answer is @m or the answer is @n."), ("@n", "The answer is @n. Or perhaps @m."), ("@n", "Answer: @n\nAnother possible answer: @m")],
    ),
    "box and a later final answer": (
        [("@n", "\\boxed{@m}. No, that is the width. \\boxed{@n}"), ("@n", "\\boxed{@m} is the width.\n\nAnswer: $@n$"), ("@n", "So \\boxed{@n}. That is the answer."), ("@n", "\\boxed{@n}\n\nHence the final answer is $@n$.")],
        [("@n", "\\boxed{@n}. No, that is the width. \\boxed{@m}"), ("@n", "\\boxed{@n} is the width.\n\nAnswer: $@m$"), ("@n", "So \\boxed{@m}. That is the answer.")],
        [("@n", "\\boxed{@n}. This is not correct."), ("@n", "\\boxed{@n}. Or it could be \\boxed{@m}."), ("@n", "Maybe \\boxed{@n}"), ("@n", "\\boxed{@n}\n\nFinal answer: @n or @m")],
    ),
    "last line as a whole": (
        [("@n", "So she needs @n eggs."), ("@n", "The total comes to $@n$."), ("\\frac{@k}{@n}", "The probability is $\\frac{@k}{@n}$."), ("@n", "Therefore x = @n."), ("-@n", "The temperature is -@n degrees."), ("@n", "We add @k to each digit of @m, which gives us @n."), ("\\sqrt{@n}", "The distance is $\\sqrt{@n}$ units.")],
        [("@n", "So she needs @m eggs."), ("\\frac{@k}{@n}", "The probability is $\\frac{@n}{@k}$."), ("@n", "Therefore x = @m.")],
        [("-@n", "The temperature is @n degrees."), ("@n", "So she needs @n or @m eggs."), ("@n", "So she does not need @n eggs."), ("@n", "Therefore x > @n."), ("@n", "Therefore 2x = @n.")],
    ),
    "several boxes": (
        [("@n, @m", "The two roots are $\\boxed{@n}$ and $\\boxed{@m}$."), ("@n, @m", "1. \\boxed{@n}\n2. \\boxed{@m}"), ("@n, @m, @k", "$\\boxed{@n} \\\\ \\boxed{@m} \\\\ \\boxed{@k}$"), ("@n, @m", "$\\boxed{@m},\\ \\boxed{@n}$")],
        [("@n, @m", "The two roots are $\\boxed{@n}$ and $\\boxed{@s}$."), ("@n, @m", "1. \\boxed{@n}\n2. \\boxed{@n}"), ("@n, @m, @k", "\\boxed{@n} \\boxed{@m} \\boxed{@s}")],
        [("@n", "$\\boxed{@n}$ and $\\boxed{@m}$"), ("@n", "1. \\boxed{@n}\n2. \\boxed{@m}"), ("@n", "\\boxed{@n} versus \\boxed{@m}"), ("@n", "\\boxed{@m}; \\boxed{@n}")],
    ),
    "thousands": (
        [("@T", "The answer is @A."), ("@T", "\\boxed{\\text{@A people}}"), ("\\$@T", "\\boxed{\\$@A}"), ("@T", "#### @A"), ("@T", "\\boxed{@B\\text{ m}}")],
        [("@T", "The answer is @A1."), ("@T", "\\boxed{@A,000}"), ("@T", "#### 1@A")],
        [("@T", "The answer is @A or @n."), ("@T", "\\boxed{@A + 1}"), ("@T", "\\boxed{@A \\text{ hundred}}"), ("@T", "\\boxed{-@A}")],
    ),
    "spacing commands": (
        [("@n", "\\boxed{\\,@n\\,}"), ("@n", "\\boxed{~@n~}"), ("(@n, @m)", "\\boxed{(@n,\\; @m)}"), ("@n\\sqrt{@k}", "\\boxed{@n\\,\\sqrt{@k}}"), ("@n", "\\boxed{\\quad @n \\quad}")],
        [("@n", "\\boxed{\\,@m\\,}"), ("(@n, @m)", "\\boxed{(@m,\\; @n)}"), ("@n\\sqrt{@k}", "\\boxed{@m\\,\\sqrt{@k}}")],
        [("@n", "\\boxed{@n\\;@m}"), ("@n", "\\boxed{@n\\qquad @m}"), ("@n", "\\boxed{@n~@m}"), ("@n", "\\boxed{@n\\ \\text{or}\\ @m}")],
    ),
    "full-width characters": (
        [("@n", "答案是@F。"), ("@n", "The answer is @F."), ("@n-@kx", "\\boxed{@n－@kx}"), ("@n", "\\boxed{＝@F}"), ("@n.5", "\\boxed{@F．５}")],
        [("@n", "答案是@G。"), ("@n", "The answer is @G."), ("@n.5", "\\boxed{@G．５}")],
        [("@n", "\\boxed{@F、@G}"), ("@n", "\\boxed{－@F}"), ("@n", "\\boxed{@F／@G}"), ("@n", "\\boxed{@F；@G}")],
    ),
    "fonts and colours": (
        [("@n", "\\boxed{\\mathbf{@n}}"), ("@n", "\\boxed{\\textbf{@n}}"), ("@n \\text{ cm}", "\\boxed{@n\\,\\mathrm{cm}}"), ("@n", "\\boxed{{\\color{red} @n}}"), ("@n", "\\boxed{\\mathrm{@n}}"), ("@n", "\\boxed{\\emph{@n}}")],
        [("@n", "\\boxed{\\mathbf{@m}}"), ("@n \\text{ cm}", "\\boxed{@m\\,\\mathrm{cm}}"), ("@n", "\\boxed{\\emph{@m}}")],
        [("@n", "\\boxed{\\textbf{@n} \\textbf{@m}}"), ("@n", "\\boxed{\\mathbf{@n} \\text{ or } \\mathbf{@m}}"), ("@n \\text{ cm}", "\\boxed{@n\\,\\mathrm{mm}}"), ("@n", "\\boxed{\\sout{@n}}")],
    ),
    "floats and powers of ten": (
        [("0.1", "\\boxed{0.10000000000000001}"), ("\\frac{5}{6}", "\\boxed{0.8333333333333334}"), ("@n00000", "\\boxed{@n \\times 10^5}"), ("0.000@n", "\\boxed{@n \\times 10^{-5}}"), ("\\sqrt{3}", "\\boxed{1.7320508}"), ("@n00", "\\boxed{@ne2}")],
        [("0.1", "\\boxed{0.10000000100000001}"), ("\\frac{5}{6}", "\\boxed{0.8333343333333334}"), ("@n00000", "\\boxed{@n \\times 10^6}"), ("\\sqrt{3}", "\\boxed{1.7321508}")],
        [("\\frac{5}{6}", "\\boxed{0.83}"), ("\\sqrt{3}", "\\boxed{1.73}"), ("0.@n", "\\boxed{0.@n1}"), ("@n00000", "\\boxed{@n \\times 10^5 + @n}")],
    ),
    "degrees inside functions": (
        [("\\sin @n^\\circ", "\\boxed{\\sin @n^{\\circ}}"), ("0", "\\boxed{\\cos 90^\\circ}"), ("\\frac{1}{2}", "\\boxed{\\cos 60^\\circ}"), ("\\tan @n^\\circ", "\\boxed{\\frac{\\sin @n^\\circ}{\\cos @n^\\circ}}"), ("-\\frac{1}{2}", "\\boxed{\\cos 120°}")],
        [("0", "\\boxed{\\cos 0^\\circ}"), ("\\frac{1}{2}", "\\boxed{\\cos 30^\\circ}"), ("\\tan @n^\\circ", "\\boxed{\\frac{\\cos @n^\\circ}{\\sin @n^\\circ}}")],
        [("0", "\\boxed{\\cos 90}"), ("\\frac{1}{2}", "\\boxed{\\cos 60}"), ("\\tan @n^\\circ", "\\boxed{\\tan @n}"), ("\\sin @n^\\circ", "\\boxed{\\sin @n^\\circ \\text{ or } \\sin @m^\\circ}")],
    ),
    "identities": (
        [("(a+b)^2", "\\boxed{a^2+2ab+b^2}"), ("x^2-@n", "\\boxed{(x-\\sqrt{@n})(x+\\sqrt{@n})}"), ("\\frac{1}{x}+\\frac{1}{y}", "\\boxed{\\frac{x+y}{xy}}"), ("\\ln\\frac{x}{@n}", "\\boxed{\\ln x-\\ln @n}"), ("e^{x+@k}", "\\boxed{e^@k e^x}"), ("\\sin 2x", "\\boxed{2\\sin x\\cos x}")],
        [("(a+b)^2", "\\boxed{a^2+b^2}"), ("x^2-@n", "\\boxed{(x-@n)(x+@n)}"), ("\\sin 2x", "\\boxed{2\\sin x}"), ("e^{x+@k}", "\\boxed{e^@k+e^x}")],
        [("\\sqrt{x^2}", "\\boxed{x}"), ("\\frac{1}{x}+\\frac{1}{y}", "\\boxed{\\frac{2}{x+y}}"), ("(a+b)^2", "\\boxed{(a+c)^2}"), ("\\ln\\frac{x}{@n}", "\\boxed{\\frac{\\ln x}{\\ln @n}}")],
    ),
    "labels on the left": (
        [("@n", "\\boxed{AB = @n}"), ("@n", "\\boxed{\\text{Perimeter} = @n}"), ("@n", "\\boxed{a_{10} = @n}"), ("@n", "The answer is $x = @n$."), ("@kx+@n", "\\boxed{g(x) = @kx+@n}"), ("@n^\\circ", "\\boxed{\\angle A = @n^\\circ}"), ("@n", "\\boxed{|\\vec{a}| = @n}"), ("0.@n", "\\boxed{P(A|B) = 0.@n}")],
        [("@n", "\\boxed{AB = @m}"), ("@n", "\\boxed{\\text{Perimeter} = @m}"), ("@kx+@n", "\\boxed{g(x) = @kx+@m}"), ("@n^\\circ", "\\boxed{\\angle A = @m^\\circ}")],
        [("@n", "\\boxed{x = @n, x = @m}"), ("@n", "\\boxed{AB = @n = @m}"), ("@n", "\\boxed{x^2 = @n}"), ("@n", "\\boxed{x < @n}"), ("@n", "\\boxed{\\text{Area} \\ne @n}")],
    ),
    "bases": (
        [("120_3", "\\boxed{120_3}"), ("120_3", "\\boxed{120_{\\text{three}}}"), ("120_3", "\\boxed{120 \\text{ (base 3)}}"), ("FF_{16}", "\\boxed{\\text{FF}_{16}}"), ("1011_2", "The answer is $1011_2$."), ("77_8", "\\boxed{77_{8}}")],
        [("120_3", "\\boxed{121_3}"), ("FF_{16}", "\\boxed{FE_{16}}"), ("77_8", "\\boxed{76_8}")],
        [("120_3", "\\boxed{120_4}"), ("120_3", "\\boxed{15}"), ("77_8", "\\boxed{63}"), ("77_8", "\\boxed{77_8 \\text{ or } 77_9}")],
    ),
    "ratios of three": (
        [("@n:@m:@k", "The answer is $@n:@m:@k$."), ("1:2:4", "\\boxed{2:4:8}"), ("1:1:\\sqrt{2}", "\\boxed{\\sqrt{2}:\\sqrt{2}:2}"), ("3:4:5", "\\boxed{3 \\colon 4 \\colon 5}"), ("3:4:5", "\\boxed{a:b:c=3:4:5}")],
        [("1:2:4", "\\boxed{1:2:3}"), ("3:4:5", "\\boxed{5:4:3}"), ("1:1:\\sqrt{2}", "\\boxed{1:1:2}")],
        [("3:4:5", "\\boxed{3:4}"), ("3:4:5", "\\boxed{0:0:0}"), ("3:4:5", "\\boxed{3:4:5 \\text{ or } 5:4:3}"), ("3:4:5", "\\boxed{(3, 4, 5)}")],
    ),
    "sets with repeats": (
        [("\\{@n, @m\\}", "\\boxed{\\{@n,@n,@m\\}}"), ("\\{@n, @m\\}", "\\boxed{\\left\\{@m, @n\\right\\}}"), ("\\{1, 2\\}", "\\boxed{\\{1, \\frac{4}{2}, 2\\}}"), ("\\{@n\\}", "\\boxed{\\{@n\\}}")],
        [("\\{@n, @m\\}", "\\boxed{\\{@n, @n\\}}"), ("\\{1, 2\\}", "\\boxed{\\{1, 3\\}}"), ("\\{@n\\}", "\\boxed{\\{@m\\}}")],
        [("\\{@n, @m\\}", "\\boxed{\\{@n\\} \\text{ or } \\{@m\\}}"), ("\\{@n, @m\\}", "\\boxed{[@n, @m]}"), ("\\{@n\\}", "\\boxed{\\{@n, @m\\}}"), ("\\{@n, @m\\}", "\\boxed{\\{@n, @m, \\emptyset\\}}")],
    ),
    "factorials of variables": (
        [("(n-1)!", "\\boxed{\\frac{n!}{n}}"), ("n!", "\\boxed{n(n-1)(n-2)!}"), ("\\frac{n!}{(n-2)!}", "\\boxed{n^2-n}"), ("\\binom{n}{3}", "\\boxed{\\frac{n(n-1)(n-2)}{6}}"), ("@k \\cdot n!", "\\boxed{n! \\cdot @k}")],
        [("(n-1)!", "\\boxed{\\frac{n!}{n-1}}"), ("\\frac{n!}{(n-2)!}", "\\boxed{n^2+n}"), ("\\binom{n}{3}", "\\boxed{\\frac{n(n-1)(n-2)}{3}}")],
        [("n!", "\\boxed{m!}"), ("(n-1)!", "\\boxed{n!-1}"), ("(n+1)!", "\\boxed{n+1!}"), ("@k \\cdot n!", "\\boxed{(@k n)!}")],
    ),
    "times with seconds": (
        [("4:15:30", "\\boxed{04:15:30}"), ("4:15:30 PM", "\\boxed{16:15:30}"), ("4:15:30", "The answer is 4:15:30."), ("11:00:0@k", "\\boxed{11:00:0@k}")],
        [("4:15:30", "\\boxed{4:15:31}"), ("4:15:30 PM", "\\boxed{16:16:30}"), ("11:00:0@k", "\\boxed{11:01:0@k}")],
        [("4:15:30 PM", "\\boxed{4:15:30 AM}"), ("4:15:30", "\\boxed{4:15}"), ("4:15:30", "\\boxed{4:15:30 \\text{ or } 5:15:30}"), ("4:15:30", "\\boxed{4:30:15}")],
    ),
    "units": (
        [("@n", "\\boxed{@n \\text{ students}}"), ("@n km", "\\boxed{@n000 \\text{ m}}"), ("@n kg", "\\boxed{@n}"), ("@n", "\\boxed{@n \\text{ cm}^2}"), ("@n", "\\boxed{@n\\text{ mph}}"), ("@n", "\\boxed{@n \\text{ small cubes}}"), ("@n \\text{ hours}", "\\boxed{@n\\text{ h}}")],
        [("@n km", "\\boxed{@n00 \\text{ m}}"), ("@n kg", "\\boxed{@m \\text{ kg}}"), ("@n", "\\boxed{@m \\text{ students}}")],
        [("@n kg", "\\boxed{@n \\text{ g}}"), ("@n", "\\boxed{@n \\text{ dozen eggs}}"), ("@n", "\\boxed{@n \\text{ and a third}}"), ("@n", "\\boxed{\\text{more than } @n}"), ("@n", "\\boxed{@n \\text{ or so}}")],
    ),
    "hedges": (
        [("@n, @m", "\\boxed{@m, @n}"), ("@n", "\\boxed{x = @n}"), ("\\pm @n", "\\boxed{\\pm @n}"), ("\\frac{@n}{@k}", "\\boxed{\\frac{@n}{@k}}"), ("@p", "\\boxed{@n \\cdot @k = @p}")],
        [("@n, @m", "\\boxed{@m}"), ("@n", "\\boxed{x = @m}"), ("@p", "\\boxed{@n + @k}")],
        [("@n", "\\boxed{@n \\text{ respectively } @m}"), ("@n", "\\boxed{@n, \\ldots, @m}"), ("@n", "\\boxed{@n\\text{-ish or }@m}"), ("@n", "I am torn between @n and @m."), ("@n", "\\boxed{@n} but \\boxed{@m} is possible too"), ("@n", "\\boxed{\\min(@n, @m)}"), ("@n", "\\boxed{@n \\pm @k}"), ("@n", "\\boxed{@n \\approx @m \\approx @s}"), ("@n", "The answer is @n and/or @m.")],
    ),
    "too large": (
        [("3^{50}", "\\boxed{3^{50}}"), ("10^{100}", "\\boxed{10^{100}}"), ("20!", "\\boxed{2432902008176640000}"), ("2^{10}", "\\boxed{1024}")],
        [("3^{50}", "\\boxed{3^{49}}"), ("20!", "\\boxed{2432902008176640001}"), ("10^{100}", "\\boxed{10^{101}}")],
        [("@n", "\\boxed{(((9!)!)!)!}"), ("@n", "\\boxed{10^{10^{10^{10}}} - 10^{10^{10^{10}}} + @n}"), ("@n", "\\boxed{\\binom{10^9}{10^8}}"), ("3^{50}", "\\boxed{3^{50^{50^{50}}}}")],
    ),
    "choices in words": (
        [("@L", "The correct choice is @L."), ("@L", "Therefore, option @L."), ("@L", "My answer: @L"), ("@L", "\\boxed{\\mathbf{@L}}"), ("@L", "Hence (@L) is the right answer."), ("@L", "**@L**"), ("@L", "@L. @l"), ("@L", "The answer is @l."), ("@L", "正确答案：@L"), ("@L", "\\boxed{\\text{@L. }@l}")],
        [("@L", "The correct choice is @M."), ("@L", "Therefore, option @M."), ("@L", "Hence (@M) is the right answer."), ("@L", "@M. @o")],
        [("@L", "The correct choice is @L or @M."), ("@L", "Both @L and @M."), ("@L", "It is not @L."), ("@L", "\\boxed{@L\\ @M}"), ("@L", "@L, @M"), ("@L", "(@L) @o"), ("@L", "Any option but @L")],
    ),
    "options that are letters": (
        [("@L", "\\boxed{\\text{@L}}"), ("@L", "(@L)"), ("@L", "The picture is @L."), ("@L", "Answer: @L")],
        [("@L", "\\boxed{\\text{@M}}"), ("@L", "(@M)"), ("@L", "Answer: @M")],
        [("@L", "@L or @M"), ("@L", "\\boxed{@L,@M}"), ("@L", "Not @L."), ("@L", "(@L) (@M)")],
    ),
    "options that are other letters": (
        [("@L", "Answer: @Y"), ("@L", "The point is @Y."), ("@L", "\\boxed{(@L)\\ @Y}"), ("@L", "So the answer is (@L).")],
        [("@L", "Answer: @Z"), ("@L", "So the answer is (@M)."), ("@L", "\\boxed{\\text{@Z}}")],
        [("@L", "\\boxed{@Y@Z}"), ("@L", "The answer is @Y or @Z."), ("@L", "\\boxed{(@L) @Z}"), ("@L", "The answer is not @Y.")],
    ),
    "Chinese statements": (
        [("@n", "故答案为@n。"), ("@n", "最终答案：**@n**"), ("@n", "答：一共有@n个苹果。"), ("@n", "正确答案是 \\boxed{@n}。"), ("@n", "因此，总数是@n。")],
        [("@n", "故答案为@m。"), ("@n", "答：一共有@m个苹果。"), ("@n", "因此，总数是@m。")],
        [("@n", "答案是@n或者@m。"), ("@n", "答案不等于@n。"), ("@n", "答案大约在@n和@m之间。"), ("@n", "\\boxed{@n或@m}")],
    ),
}  # fmt: skip
