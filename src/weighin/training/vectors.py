"""A small language for loops over vectors of channels, compiled by LLVM when they are first run.

Every operation is IEEE 754's on 32 bits, none is reordered or contracted (`fma` is where it is
written), and a vector is 16 lanes whatever the processor's are. So the bits of a kernel follow from
its text: they are the same on every processor.
"""

import ctypes
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union

import llvmlite.binding as llvm
from llvmlite import ir

LANES = 16
I64, I32, I8, FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()
POINTER = ir.PointerType()
VECTOR, WHOLE = ir.VectorType(FLOAT, LANES), ir.VectorType(I32, LANES)
BYTES, PLACES = ir.VectorType(I8, LANES), ir.VectorType(POINTER, LANES)
MASK = ir.VectorType(ir.IntType(1), LANES)
VALUES: dict[Any, Any] = {I64: ctypes.c_int64, FLOAT: ctypes.c_float, POINTER: ctypes.c_void_p}
WIDE = '"prefer-vector-width"="512" "min-legal-vector-width"="512"'  # where the processor has it
Operand = Union["Term", int, float]


@dataclass(frozen=True, eq=False)
class Term:
    """A value of a kernel: a size (64 bits), or a vector of 16 floats."""

    b: ir.IRBuilder
    value: Any

    def _with(self, other: Operand, integer: str, floating: str) -> "Term":
        operation = integer if self.value.type == I64 else floating
        return Term(self.b, getattr(self.b, operation)(self.value, self.like(other)))

    def like(self, other: Operand) -> Any:
        """Return another operand's value; a plain number becomes a constant of this one's type."""
        if isinstance(other, Term):
            return other.value
        vector = self.value.type == VECTOR
        return ir.Constant(self.value.type, [float(other)] * LANES if vector else other)

    def __add__(self, other: Operand) -> "Term":
        return self._with(other, "add", "fadd")

    def __sub__(self, other: Operand) -> "Term":
        return self._with(other, "sub", "fsub")

    def __mul__(self, other: Operand) -> "Term":
        return self._with(other, "mul", "fmul")

    def __truediv__(self, other: Operand) -> "Term":
        return self._with(other, "sdiv", "fdiv")

    __floordiv__ = __truediv__

    def __mod__(self, other: Operand) -> "Term":
        return self._with(other, "srem", "frem")

    def __lt__(self, other: Operand) -> "Term":
        return self._compare("<", other)

    def __gt__(self, other: Operand) -> "Term":
        return self._compare(">", other)

    def _compare(self, sign: str, other: Operand) -> "Term":
        compare = self.b.icmp_signed if self.value.type == I64 else self.b.fcmp_ordered
        return Term(self.b, compare(sign, self.value, self.like(other)))

    def choose(self, yes: "Term", no: Operand) -> "Term":
        """Return `yes` where this comparison holds (for NaN it does not), else `no`."""
        return Term(self.b, self.b.select(self.value, yes.value, yes.like(no)))

    def equals(self, other: Operand) -> "Term":
        """Return a comparison that holds where both are the same number."""
        return self._compare("==", other)

    def or_nan(self, number: "Term") -> "Term":
        """Return a comparison that holds where this one does, or where a number is NaN."""
        nan = self.b.fcmp_unordered("uno", number.value, number.value)
        return Term(self.b, self.b.or_(self.value, nan))

    def at_most(self, other: Operand) -> "Term":
        """Return the smaller of two; NaN stays NaN."""
        return (self > other).choose(Term(self.b, self.like(other)), self)

    def at_least(self, other: Operand) -> "Term":
        """Return the larger of two; NaN stays NaN."""
        return (self < other).choose(Term(self.b, self.like(other)), self)


class Variable:
    """A vector that changes: a sum over a loop."""

    def __init__(self, kernel: "Kernel", start: float = 0.0) -> None:
        self.b = kernel.b
        with self.b.goto_block(kernel.entry):
            self.place = self.b.alloca(VECTOR)
        self.set(kernel.vector(start))

    def get(self) -> Term:
        """Return its value here."""
        return Term(self.b, self.b.load(self.place, typ=VECTOR))

    def set(self, value: Term) -> None:
        """Change its value."""
        self.b.store(value.value, self.place)


class Kernel:
    """What a kernel is written with: its arguments by name, loops, loads and stores."""

    def __init__(self, function: ir.Function, names: list[str]) -> None:
        self.b = ir.IRBuilder(function.append_basic_block())
        self.entry = self.b.block
        self.args = {n: Term(self.b, a) for n, a in zip(names, function.args, strict=True)}
        self.mask: Any = None  # of the last channels, where they are fewer than a vector

    def __getattr__(self, name: str) -> Term:
        return self.args[name]

    def size(self, number: int) -> Term:
        """Return a size that is known."""
        return Term(self.b, I64(number))

    def number(self, size: Term) -> Term:
        """Return a size as a float in all lanes."""
        return self.every_lane(Term(self.b, self.b.sitofp(size.value, FLOAT)))

    def vector(self, number: float) -> Term:
        """Return a constant in all lanes."""
        return Term(self.b, ir.Constant(VECTOR, [number] * LANES))

    def place(self, base: Term, index: Term) -> Term:
        """Return the address of base[index]."""
        return Term(self.b, self.b.gep(base.value, [index.value], source_etype=FLOAT))

    def load(self, base: Term, index: Term) -> Term:
        """Return the vector at base[index]."""
        place = self.place(base, index).value
        if self.mask is None:
            loaded = self.b.load(place, typ=VECTOR, align=4)
            return Term(self.b, loaded)
        kinds = [POINTER, I32, MASK, VECTOR]
        values = [place, I32(4), self.mask, self.vector(0.0).value]
        return self._call("masked.load.v16f32.p0", VECTOR, kinds, values)

    def store(self, value: Term, base: Term, index: Term) -> None:
        """Set the vector at base[index]."""
        place = self.place(base, index).value
        if self.mask is None:
            self.b.store(value.value, place, align=4)
            return
        kinds = [VECTOR, POINTER, I32, MASK]
        values = [value.value, place, I32(4), self.mask]
        self._call("masked.store.v16f32.p0", ir.VoidType(), kinds, values)

    def copy(self, base: Term, index: Term, out: Term, place: Term) -> None:
        """Set out[place] to base[index], one float."""
        value = self.b.load(self.place(base, index).value, typ=FLOAT)
        self.b.store(value, self.place(out, place).value)

    def every_lane(self, number: Term) -> Term:
        """Return one float in all lanes."""
        return Term(self.b, self._splat(number.value, VECTOR))

    def one(self, base: Term, index: Term) -> Term:
        """Return base[index] in all lanes."""
        place = self.place(base, index).value
        return self.every_lane(Term(self.b, self.b.load(place, typ=FLOAT)))

    def fma(self, a: Term, b: Operand, c: Operand) -> Term:
        """Return a * b + c, rounded once."""
        values = [a.value, a.like(b), a.like(c)]
        return self._call("fma.v16f32", VECTOR, [VECTOR] * 3, values)

    def floor(self, a: Term) -> Term:
        """Return the largest whole number that is not above."""
        return self._call("floor.v16f32", VECTOR, [VECTOR], [a.value])

    def sqrt(self, a: Term) -> Term:
        """Return the square root."""
        return self._call("sqrt.v16f32", VECTOR, [VECTOR], [a.value])

    def lanes(self) -> Term:
        """Return 0 to 15."""
        return Term(self.b, ir.Constant(VECTOR, [float(lane) for lane in range(LANES)]))

    def byte(self, base: Term, index: Term) -> Term:
        """Return the address of the byte base[index]."""
        return Term(self.b, self.b.gep(base.value, [index.value], source_etype=I8))

    def bytes(self, base: Term, index: Term) -> Term:
        """Return the 16 bytes at base[index]."""
        loaded = self.b.load(self.byte(base, index).value, typ=BYTES, align=1)
        return Term(self.b, self.b.uitofp(loaded, VECTOR))

    def pixels(self, base: Term, first: Term) -> list[Term]:
        """Return red, green and blue of 16 pixels of 3 bytes, from the one at base[first]."""
        place = self.byte(base, first * 3).value
        loaded = self.b.load(place, typ=ir.VectorType(I8, 3 * LANES), align=1)
        return [
            Term(self.b, self.b.uitofp(self._lanes(loaded, loaded, range(c, 48, 3)), VECTOR))
            for c in range(3)
        ]

    def pixels_at(self, base: Term, indices: Term) -> list[Term]:
        """Return red, green and blue of the pixels at whole numbers; a byte after each is read."""
        offsets = self.b.mul(self.b.fptosi(indices.value, WHOLE), ir.Constant(WHOLE, [3] * LANES))
        places = self.b.gep(base.value, [offsets], source_etype=I8)
        places.type = PLACES  # which llvmlite takes for one address
        kinds, all_lanes = [PLACES, I32, MASK, WHOLE], ir.Constant(MASK, [1] * LANES)
        values = [places, I32(1), all_lanes, ir.Constant(WHOLE, [0] * LANES)]
        loaded = self._call("masked.gather.v16i32.v16p0", WHOLE, kinds, values).value
        shifted = [self.b.lshr(loaded, ir.Constant(WHOLE, [8 * c] * LANES)) for c in range(3)]
        low = ir.Constant(WHOLE, [255] * LANES)
        return [Term(self.b, self.b.sitofp(self.b.and_(one, low), VECTOR)) for one in shifted]

    def store_pixels(self, colors: list[Term], base: Term, first: Term) -> None:
        """Set 16 pixels from base[first] on to red, green and blue, cut to whole numbers."""
        red, green, blue = (self.b.fptoui(color.value, BYTES) for color in colors)
        pair, last = self._lanes(red, green, range(32)), self._lanes(blue, blue, range(32))
        order = [lane + 16 * color for lane in range(LANES) for color in range(3)]
        joined = self._lanes(pair, last, order)
        self.b.store(joined, self.byte(base, first * 3).value, align=1)

    @contextmanager
    def loop(self, start: Operand, stop: Term, step: int = 1) -> Iterator[Term]:
        """Repeat what the block writes for start, start + step, ... below stop."""
        before, test = self.b.block, self.b.append_basic_block()
        body, after = self.b.append_basic_block(), self.b.append_basic_block()
        self.b.branch(test)
        self.b.position_at_end(test)
        index = self.b.phi(I64)
        index.add_incoming(stop.like(start), before)
        self.b.cbranch(self.b.icmp_signed("<", index, stop.value), body, after)
        self.b.position_at_end(body)
        yield Term(self.b, index)
        index.add_incoming(self.b.add(index, I64(step)), self.b.block)
        self.b.branch(test)
        self.b.position_at_end(after)

    @contextmanager
    def when(self, condition: Term) -> Iterator[None]:
        """Run what the block writes where a comparison of sizes holds."""
        with self.b.if_then(condition.value):
            yield

    def steps(
        self, start: Operand, stop: Term, width: int, write: Callable[[Term, int], None]
    ) -> None:
        """Write(index, width) for indices by `width`, then write(index, 1) for those left."""
        many = (stop - start) / width * width + start
        with self.loop(start, many, width) as index:
            write(index, width)
        with self.loop(many, stop) as index:
            write(index, 1)

    def halving_steps(
        self, start: Operand, stop: Term, width: int, write: Callable[[Term, int], None]
    ) -> None:
        """Write(index, width) for indices by `width`, then for those left by halves of it."""
        while width:
            end = (stop - start) / width * width + start
            with self.loop(start, end, width) as index:
                write(index, width)
            start, width = end, width // 2

    def channels(self, count: Term, write: Callable[[Term], None]) -> None:
        """Write(c) for each vector of channels, and masked for the last channels."""
        many = count / LANES * LANES
        with self.loop(0, many, LANES) as c:
            write(c)
        with self.when(many < count):
            left = self._splat(self.b.trunc((count - many).value, I32), WHOLE)
            self.mask = self.b.icmp_signed("<", ir.Constant(WHOLE, list(range(LANES))), left)
            write(many)
            self.mask = None

    def power_of_two(self, near: Term, times: Term) -> Term:
        """Return `times` * 2^n, n being the last bits of `near` = 1.5 * 2^23 + n."""
        bits = self.b.shl(self.b.bitcast(near.value, WHOLE), ir.Constant(WHOLE, [23] * LANES))
        whole = self.b.add(self.b.bitcast(times.value, WHOLE), bits)
        return Term(self.b, self.b.bitcast(whole, VECTOR))

    def _lanes(self, one: Any, two: Any, which: Iterable[int]) -> Any:
        """Return some lanes of two vectors, those of the second numbered after the first's."""
        numbers = list(which)
        mask = ir.Constant(ir.VectorType(I32, len(numbers)), numbers)
        return self.b.shuffle_vector(one, two, mask)

    def _splat(self, value: Any, kind: ir.Type) -> Any:
        nothing, zeros = ir.Constant(kind, ir.Undefined), ir.Constant(WHOLE, [0] * LANES)
        return self.b.shuffle_vector(self.b.insert_element(nothing, value, I32(0)), nothing, zeros)

    def _call(self, name: str, result: ir.Type, kinds: list[ir.Type], values: list[Any]) -> Term:
        module, name = self.b.module, f"llvm.{name}"
        function = module.globals.get(name)
        function = function or ir.Function(module, ir.FunctionType(result, kinds), name)
        return Term(self.b, self.b.call(function, values))


@functools.cache
def host() -> Any:
    """Return LLVM's target machine of this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return target(llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


def registers() -> int:
    """Return how many vectors of 16 floats this processor holds: sums that a loop may keep."""
    wide = llvm.get_host_cpu_features().get("avx512f", False)
    return 32 if wide else 8


def target(cpu: str, features: str = "") -> Any:
    """Return LLVM's target machine of an x86-64 processor."""
    triple = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    return triple.create_target_machine(cpu=cpu, features=features, opt=1)


def compiled(pointers: str, sizes: str, numbers: str = "") -> Callable[[Any], Any]:
    """Make what writes a kernel a function of its options that returns the kernel, compiled once.

    The kernel takes addresses, sizes and floats in the order of the names.
    """
    kinds = [POINTER] * len(pointers.split()) + [I64] * len(sizes.split())
    kinds += [FLOAT] * len(numbers.split())
    names = f"{pointers} {sizes} {numbers}".split()

    def decorate(write: Callable[..., None]) -> Any:
        @functools.wraps(write, assigned=("__doc__", "__name__", "__module__"))
        def build(*options: Any) -> Callable[..., None]:
            text = _written(lambda kernel: write(kernel, *options), names, kinds)
            return ctypes.CFUNCTYPE(None, *(VALUES[kind] for kind in kinds))(_machine_code(text))

        return functools.cache(build)

    return decorate


def _written(write: Callable[[Kernel], None], names: list[str], kinds: list[Any]) -> str:
    """Return a kernel in LLVM's language."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "kernel")
    function.attributes.add("nounwind")
    for argument in function.args:
        if argument.type == POINTER:
            argument.add_attribute("noalias")
    kernel = Kernel(function, names)
    begin = kernel.b.append_basic_block()
    kernel.b.position_at_end(begin)
    write(kernel)
    kernel.b.ret_void()
    kernel.b.position_at_end(kernel.entry)  # holds the variables
    kernel.b.branch(begin)
    return str(module).replace("nounwind", f"nounwind {WIDE}")


_engines: list[Any] = []  # own the machine code


def _machine_code(text: str) -> int:
    """Return the address of a kernel's code for this processor."""
    module = llvm.parse_assembly(text)
    passes = llvm.create_new_function_pass_manager()  # all of -O2 takes longer and gains nothing
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    builder = llvm.create_pass_builder(host(), llvm.create_pipeline_tuning_options())
    passes.run(module.get_function("kernel"), builder)
    engine = llvm.create_mcjit_compiler(module, host())
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address("kernel"))
