"""The compiled kernel of a search, as a program in LLVM's language.

No optimisation of LLVM's is run on it, so what it says is what the processor does.
"""

from collections.abc import Sequence

_ROWS = 4  # templates read at a time, in the order in which they lie: others are not read ahead


class _Program:
    """Lines of LLVM's language. Vectors have `lanes` numbers of 32 bits, or four times as many
    bytes."""

    def __init__(self, lanes: int, instruction: str) -> None:
        self.lanes = lanes
        self.ints, self.floats = f"<{lanes} x i32>", f"<{lanes} x float>"
        self.bytes, self.bits = f"<{4 * lanes} x i8>", f"<{lanes} x i1>"
        self._products = f"<{4 * lanes} x i32>"
        self._dot = instruction
        self.lines = []
        if instruction:
            of = f"{self.ints}, {self.bytes}, {self.bytes}"
            self.lines.append(f"declare {self.ints} @{instruction}({of})")
        self.lines += [f"declare i{lanes} @llvm.ctpop.i{lanes}(i{lanes})"]
        self.lines += [
            f"declare void @llvm.masked.compressstore.v{lanes}{kind}(<{lanes} x {of}>, ptr, "
            f"{self.bits})"
            for kind, of in (("i32", "i32"), ("f32", "float"))
        ]

    def add(self, *lines: str) -> None:
        self.lines += lines

    def new(self, text: str) -> str:
        """A value."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def load(self, kind: str, base: str, index: str) -> str:
        """The value at an index of an array of such."""
        place = self.new(f"getelementptr {kind}, ptr {base}, i64 {index}")
        return self.new(f"load {kind}, ptr {place}, align 1")

    def splat(self, kind: str, value: str) -> str:
        one = self.new(f"insertelement <{self.lanes} x {kind}> poison, {kind} {value}, i32 0")
        return self.new(
            f"shufflevector <{self.lanes} x {kind}> {one}, <{self.lanes} x {kind}> poison, "
            f"{self.ints} zeroinitializer"
        )

    def halves(self, codes: str) -> tuple[str, str]:
        """The low and the high four bits of bytes."""
        fifteen, four = (f"<{', '.join([f'i8 {number}'] * 4 * self.lanes)}>" for number in (15, 4))
        low = self.new(f"and {self.bytes} {codes}, {fifteen}")
        return low, self.new(f"lshr {self.bytes} {codes}, {four}")

    def dot(self, total: str, codes: str, probe: str) -> str:
        """Sums of four products each, of unsigned bytes below 16 and signed ones, and a total."""
        if self._dot:
            of = f"{self.ints} {total}, {self.bytes} {codes}, {self.bytes} {probe}"
            return self.new(f"call {self.ints} @{self._dot}({of})")
        left = self.new(f"sext {self.bytes} {codes} to {self._products}")
        right = self.new(f"sext {self.bytes} {probe} to {self._products}")
        products = self.new(f"mul {self._products} {left}, {right}")
        for part in range(4):
            order = ", ".join(f"i32 {4 * lane + part}" for lane in range(self.lanes))
            fourth = self.new(
                f"shufflevector {self._products} {products}, {self._products} poison, "
                f"{self.ints} <{order}>"
            )
            total = self.new(f"add {self.ints} {total}, {fourth}")
        return total

    def swapped(self, first: str, second: str, step: int) -> tuple[str, str]:
        """Exchange every other stretch of `step` numbers: one stage of a transposition."""
        orders = [
            [j if not j & step else self.lanes + j - step for j in range(self.lanes)],
            [j + step if not j & step else self.lanes + j for j in range(self.lanes)],
        ]
        one, other = (
            self.new(
                f"shufflevector {self.ints} {first}, {self.ints} {second}, {self.ints} "
                f"<{', '.join(f'i32 {j}' for j in order)}>"
            )
            for order in orders
        )
        return one, other

    def transposed(self, rows: Sequence[str]) -> list[str]:
        """As many vectors as each has numbers, as the columns of these."""
        turned, step = list(rows), 1
        while step < self.lanes:
            for i in range(self.lanes):
                if not i & step:
                    turned[i], turned[i + step] = self.swapped(turned[i], turned[i + step], step)
            step *= 2
        return turned

    def sums(self, rows: Sequence[str], step: int = 1) -> str:
        """The sum of each of as many vectors as it has numbers: a transposition, added up.

        It can be done in two parts: for some, and from `step` on for the vectors this makes.
        """
        left = list(rows)
        while len(left) > 1:
            pairs = [self.swapped(left[i], left[i + 1], step) for i in range(0, len(left), 2)]
            left = [self.new(f"add {self.ints} {one}, {other}") for one, other in pairs]
            step *= 2
        return left[0]

    def keep(
        self, products: str, column: str, terms: Sequence[str], weights: Sequence[str]
    ) -> None:
        """Append the templates whose bounds reach the mark, weights[3], of a probe."""
        floats, here = self.floats, len(self.lines)
        shift, first, second, mark = (self.splat("float", weight) for weight in weights)
        exact = self.new(f"sitofp {self.ints} {products} to {floats}")
        shifted = self.new(f"fadd {floats} {exact}, {shift}")
        scaled = self.new(f"fmul {floats} {shifted}, {terms[0]}")
        middle = self.new(f"fmul {floats} {terms[1]}, {first}")
        spread = self.new(f"fmul {floats} {terms[2]}, {second}")
        rest = self.new(f"fadd {floats} {middle}, {spread}")
        bounds = self.new(f"fadd {floats} {scaled}, {rest}")
        reached = self.new(f"fcmp oge {floats} {bounds}, {mark}")
        mask = self.new(f"bitcast {self.bits} {reached} to i{self.lanes}")
        some = self.new(f"icmp ne i{self.lanes} {mask}, 0")
        self.add(f"  br i1 {some}, label %keep{here}, label %kept{here}", f"keep{here}:")
        size = self.new("load i64, ptr %size")
        number = self.new("trunc i64 %i to i32")
        steps = f"<{', '.join(f'i32 {lane}' for lane in range(self.lanes))}>"
        rows = self.new(f"add {self.ints} {self.splat('i32', number)}, {steps}")
        for kind, short, values, out in (
            (self.ints, "i32", rows, "%rows_out"),
            (self.ints, "i32", self.splat("i32", column), "%columns_out"),
            (floats, "f32", bounds, "%bounds_out"),
        ):
            place = self.new(f"getelementptr i32, ptr {out}, i64 {size}")
            self.add(
                f"  call void @llvm.masked.compressstore.v{self.lanes}{short}({kind} {values}, "
                f"ptr align 4 {place}, {self.bits} {reached})"
            )
        kept = self.new(f"call i{self.lanes} @llvm.ctpop.i{self.lanes}(i{self.lanes} {mask})")
        kept = self.new(f"zext i{self.lanes} {kept} to i64")
        self.add(
            f"  store i64 {self.new(f'add i64 {size}, {kept}')}, ptr %size",
            f"  br label %kept{here}",
            f"kept{here}:",
        )


def program(width: int, together: int, lanes: int, instruction: str) -> str:
    """`scan(codes, rows, terms (three), probes, weights, groups, rows_out, columns_out,
    bounds_out)` of groups of `together` probes; returns how many templates it kept.

    A template lies in memory as a row, and `lanes` of them are done at a time. For one probe, what
    its products with each row add up to is put side by side. Several are not worth that each time:
    the rows are turned into columns once, and each is multiplied with all probes.
    """
    p = _Program(lanes, instruction)
    p.add(
        "define i64 @scan(ptr %codes, i64 %rows, ptr %terms0, ptr %terms1, ptr %terms2, "
        "ptr %probes, ptr %weights, i64 %groups, ptr %rows_out, ptr %columns_out, "
        "ptr %bounds_out) {",
        "  %size = alloca i64",
        f"  %columns = alloca [{max(lanes, width // 2)} x {p.ints}], align 64",
        f"  %copy = alloca [{lanes * width} x i8], align 64",
        "  store i64 0, ptr %size",
        "  br label %each",
        "each:",
        "  %i = phi i64 [0, %0], [%next, %done]",
        "  %more = icmp slt i64 %i, %rows",
        "  br i1 %more, label %block, label %end",
        "block:",
    )
    terms = [
        p.load(p.floats, p.new(f"getelementptr float, ptr %terms{t}, i64 %i"), "0")
        for t in range(3)
    ]
    p.add("  br label %row", "row:", "  %r = phi i64 [0, %block], [%r_next, %row]")
    at = p.new("add i64 %i, %r")
    rows = [
        p.new(f"getelementptr [{width} x i8], ptr %codes, i64 {p.new(f'add i64 {at}, {r}')}")
        for r in range(_ROWS)
    ]
    if together == 1:
        place = p.new(f"getelementptr [{4 * lanes // _ROWS} x i8], ptr %columns, i64 %r")
        part = p.sums([_one_row(p, row, width) for row in rows])
        p.add(f"  store {p.ints} {part}, ptr {place}, align {4 * lanes}")
    else:
        for r, row in enumerate(rows):
            for n in range(width // (4 * lanes)):
                part = p.load(p.ints, row, str(n))
                place = p.new(
                    f"getelementptr [{width} x i8], ptr %copy, i64 {p.new(f'add i64 %r, {r}')}"
                )
                place = p.new(f"getelementptr {p.ints}, ptr {place}, i64 {n}")
                p.add(f"  store {p.ints} {part}, ptr {place}, align {4 * lanes}")
    p.add(
        f"  %r_next = add i64 %r, {_ROWS}",
        f"  %rows_done = icmp eq i64 %r_next, {lanes}",
        "  br i1 %rows_done, label %rowed, label %row",
        "rowed:",
    )
    if together == 1:
        parts = [p.load(p.ints, "%columns", str(n)) for n in range(lanes // _ROWS)]
        weights = [p.load("float", "%weights", str(w)) for w in range(4)]
        p.keep(p.sums(parts, _ROWS), "0", terms, weights)
    else:
        rows = [p.new(f"getelementptr i8, ptr %copy, i64 {r * width}") for r in range(lanes)]
        _turn(p, rows, width)
        _all_probes(p, terms, width, together)
    p.add(
        "  br label %done",
        "done:",
        f"  %next = add i64 %i, {lanes}",
        "  br label %each",
        "end:",
        "  %result = load i64, ptr %size",
        "  ret i64 %result",
        "}",
    )
    return "\n".join(p.lines)


def _one_row(p: _Program, row: str, width: int) -> str:
    """Products of a template and the only probe, added up to as many numbers as a vector has."""
    total = "zeroinitializer"
    for n in range(width // (4 * p.lanes)):
        for half, codes in enumerate(p.halves(p.load(p.bytes, row, str(n)))):
            place = str(half * (width // (4 * p.lanes)) + n)
            total = p.dot(total, codes, p.load(p.bytes, "%probes", place))
    return total


def _turn(p: _Program, rows: Sequence[str], width: int) -> None:
    """Write rows as columns: each four bytes of every row, first the low halves, then the high."""
    p.add("  br label %turn", "turn:")
    p.add("  %piece = phi i64 [0, %rowed], [%piece_next, %turn]")
    found = [p.load(p.ints, row, "%piece") for row in rows]
    at = p.new(f"mul i64 %piece, {2 * p.lanes}")
    for n, column in enumerate(p.transposed(found)):
        codes = p.new(f"bitcast {p.ints} {column} to {p.bytes}")
        for half, part in enumerate(p.halves(codes)):
            index = p.new(f"add i64 {at}, {2 * n + half}")
            place = p.new(f"getelementptr {p.bytes}, ptr %columns, i64 {index}")
            p.add(f"  store {p.bytes} {part}, ptr {place}, align {4 * p.lanes}")
    p.add(
        "  %piece_next = add i64 %piece, 1",
        f"  %turned = icmp eq i64 %piece_next, {width // (4 * p.lanes)}",
        "  br i1 %turned, label %group_first, label %turn",
        "group_first:",
        "  br label %group",
    )


def _all_probes(p: _Program, terms: Sequence[str], width: int, together: int) -> None:
    """Products of the columns with all probes, some at a time."""
    steps = width // 2
    p.add("group:", "  %g = phi i64 [0, %group_first], [%g_next, %grouped]")
    first = p.new(f"mul i64 %g, {together}")
    asked = p.new(f"getelementptr [{steps * together} x i32], ptr %probes, i64 %g")
    p.add("  br label %step", "step:", "  %s = phi i64 [0, %group], [%s_next, %step]")
    p.add(
        *(
            f"  %t{k} = phi {p.ints} [zeroinitializer, %group], [%n{k}, %step]"
            for k in range(together)
        )
    )
    column = p.load(p.bytes, "%columns", "%s")
    at = p.new(f"mul i64 %s, {together}")
    for k in range(together):
        four = p.load("i32", asked, p.new(f"add i64 {at}, {k}"))
        probe = p.new(f"bitcast {p.ints} {p.splat('i32', four)} to {p.bytes}")
        total = p.dot(f"%t{k}", column, probe)
        p.add(f"  %n{k} = add {p.ints} {total}, zeroinitializer")
    p.add(
        "  %s_next = add i64 %s, 1",
        f"  %stepped = icmp eq i64 %s_next, {steps}",
        "  br i1 %stepped, label %steps_done, label %step",
        "steps_done:",
    )
    for k in range(together):
        number = p.new(f"add i64 {first}, {k}")
        mine = p.new(f"getelementptr [4 x float], ptr %weights, i64 {number}")
        weights = [p.load("float", mine, str(w)) for w in range(4)]
        p.keep(f"%n{k}", p.new(f"trunc i64 {number} to i32"), terms, weights)
    p.add(
        "  br label %grouped",
        "grouped:",
        "  %g_next = add i64 %g, 1",
        "  %more_groups = icmp slt i64 %g_next, %groups",
        "  br i1 %more_groups, label %group, label %through",
        "through:",
    )
