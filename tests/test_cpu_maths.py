"""The vector mathematics of the CPU kernels, against wider floats and against torch itself."""

from __future__ import annotations

import ctypes
import functools
import math
import re

import numpy as np
import pytest
import torch
from llvmlite import ir

from elman.backends.cpu import engine, machine
from elman.backends.cpu.maths import ELEMENTWISE, Vectors, emit, splat
from elman.equation.derivatives import ALL_OPERATIONS, WHOLE
from elman.errors import InputError

MACHINES = ("avx512", "avx2", "plain")
ELEMENTS = {"float": np.float32, "double": np.float64}
BINARY = ("add", "sub", "mul", "div", "pow", "minimum", "maximum", "gt", "ge", "lt", "le", "eq")
ARITY = {"where": 3, "fma": 3, **dict.fromkeys(BINARY, 2)}
ATTRIBUTES = {
    "leaky_relu": {"slope": 0.1},
    "elu": {"alpha": 1.5},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "clamp": {"low": -1.0, "high": 2.0},
}
POINTER, INT = ir.PointerType(), ir.IntType(64)
nan, inf = math.nan, math.inf


def on_machine(name):
    one = machine.named(name)
    if not machine.runs_here(one):
        pytest.skip(f"this processor has no {name}")
    return one


def vectors(builder, element, on, lanes=None):
    return Vectors(
        builder,
        element,
        lanes or on.lanes(element),
        fused=on.name != "plain",
        scaling=on.name == "avx512",
    )


def loop_text(on, element, arity, body, lanes=None):
    """A function (a, b, c, out, count) that maps body(v, a, b, c) over arrays."""
    module = ir.Module("loop")
    kind = ir.FunctionType(ir.VoidType(), [POINTER] * 4 + [INT])
    function = ir.Function(module, kind, "loop")
    for key, value in {**on.prefer, "no-builtins": ""}.items():
        set.add(function.attributes, f'"{key}"="{value}"' if value else f'"{key}"')
    first, around, last = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(first)
    builder.branch(around)
    builder.position_at_end(around)
    at = builder.phi(INT)
    at.add_incoming(ir.Constant(INT, 0), first)
    v = vectors(builder, element, on, lanes)
    size = v.format.size // 8
    address = [builder.gep(one, [at], source_etype=v.format.scalar) for one in function.args[:4]]
    operands = [builder.load(one, typ=v.type, align=size) for one in address[:arity]]
    builder.store(v.number(body(v, *operands)), address[3], align=size)
    onward = builder.add(at, ir.Constant(INT, v.lanes))
    at.add_incoming(onward, around)
    builder.cbranch(builder.icmp_signed("<", onward, function.args[4]), around, last)
    builder.position_at_end(last)
    builder.ret_void()
    return str(module)


def mapped(name, element, arity, body, lanes=None):
    """The loop, compiled, as a function of arrays."""
    on = on_machine(name)
    text = loop_text(on, element, arity, body, lanes)
    code = engine.compile_module(text, lambda: text, ["loop"], on, cached=False)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4, ctypes.c_int64)
    function = kind(code.address("loop"))

    def call(*arrays):
        count = len(arrays[0])
        room = -count % (lanes or 64)
        padded = [np.pad(np.asarray(one, ELEMENTS[element]), (0, room)) for one in arrays]
        out = np.empty(count + room, ELEMENTS[element])
        places = [one.ctypes.data for one in padded] + [out.ctypes.data] * (4 - len(padded))
        function(*places, count + room)
        assert code is not None  # the code lives as long as the function
        return out[:count]

    return call


def operation(name, element, op, attributes=None, lanes=None):
    attributes = ATTRIBUTES.get(op, {}) if attributes is None else attributes
    arity = ARITY.get(op, 1)
    return mapped(name, element, arity, lambda v, *xs: emit(v, op, xs, attributes), lanes)


# Distances in units in the last place.


def wider(element):
    """The number type of the oracle."""
    if element == "float":
        return np.float64
    if np.finfo(np.longdouble).eps > 1e-18:
        pytest.skip("no numbers wider than double here to judge double by")
    return np.longdouble


def units(got, true, element):
    """The distances in units in the last place of the true value; ∞ for a wrong NaN or infinity."""
    dtype = ELEMENTS[element]
    shift, least = (23, -126) if element == "float" else (52, -1022)
    with np.errstate(all="ignore"):
        true = np.asarray(true).astype(np.longdouble)
        _, exponent = np.frexp(np.where(np.isfinite(true) & (true != 0), true, 1))
        exponent = np.where(true == 0, least, exponent - 1)
        unit = np.ldexp(np.longdouble(1), np.maximum(exponent, least) - shift)
        far = np.abs(got.astype(np.longdouble) - true) / unit
        # What rounds to infinity has it as its value; the largest number is one unit off.
        over = np.abs(true) >= np.finfo(dtype).max * (1 + np.longdouble(2) ** -(shift + 2))
        top = np.where(np.abs(got) == np.finfo(dtype).max, 1, inf)
        far = np.where(over, np.where(got == np.sign(true) * inf, 0, top), far)
        either, both = np.isnan(got) | np.isnan(true), np.isnan(got) & np.isnan(true)
        return np.where(either, np.where(both, 0, inf), far).astype(float)


def assert_within(bound, got, true, element, arguments):
    far = units(got, true, element)
    worst = int(np.argmax(far))
    at = [one[worst] for one in arguments]
    assert far[worst] <= bound, f"{far[worst]:.2f} units at {at}: {got[worst]!r}, {true[worst]!r}"


@functools.cache
def everywhere(element, low, high):
    """Numbers of every exponent, of many, and many between low and high; both signs."""
    dtype = ELEMENTS[element]
    size, shift = (np.uint32, 23) if element == "float" else (np.uint64, 52)
    draw = np.random.default_rng(0)
    exponents = np.arange(255 if element == "float" else 2047).astype(np.uint64)
    each = 300 if element == "float" else 40
    fractions = draw.integers(0, 2**shift, (len(exponents), each), dtype=np.uint64)
    fractions[:, 0], fractions[:, 1] = 0, 2**shift - 1
    bits = (exponents[:, None] << np.uint64(shift)) | fractions
    x = bits.astype(size).ravel().view(dtype)
    near = draw.uniform(low, high, 150_000).astype(dtype)
    small = draw.uniform(-1, 1, 50_000).astype(dtype)
    one = 1 + draw.uniform(-1e-3, 1e-3, 20_000).astype(dtype)
    return np.concatenate([x, -x, near, small, one])


def true_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def true_softplus(x, beta, threshold):
    z = x * beta
    y = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta
    return np.where(z > threshold, x, y)


def true_elu(x, alpha):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * alpha)


# For each: the true function, where it is sampled densely, and the bounds for float and double,
# a little above the worst that far longer sweeps found.
TRUE = {
    "sigmoid": (true_sigmoid, -110, 40, 2.5, 2.5),
    "tanh": (np.tanh, -20, 20, 3.5, 3.5),
    "exp": (np.exp, -110, 90, 1.3, 1.3),
    "log": (np.log, 0, 4, 2.2, 2.2),
    "sin": (np.sin, -1e4, 1e4, 0.7, 2.3),
    "cos": (np.cos, -1e4, 1e4, 0.7, 2.3),
    "elu": (true_elu, -40, 1, 2.4, 2.4),
    "softplus": (true_softplus, -110, 25, 3.0, 3.0),
    "hardsigmoid": (lambda x: np.clip(x + 3, 0, 6) / 6, -4, 4, 1.5, 1.5),
    "sqrt": (np.sqrt, 0, 10, 0.5, 0.5),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 0, 10, 1.6, 1.6),
}


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("op", TRUE)
def test_the_error_is_bounded_everywhere(name, element, op):
    true, low, high, *bounds = TRUE[op]
    if element == "double" and op in ("sigmoid", "exp", "softplus"):
        low, high = -750.0, 711.0
    x = everywhere(element, low, high)
    if op in ("sin", "cos"):
        x = x[np.abs(x) <= 1e4]
        x = np.concatenate([x, multiples(element)])
    bound = bounds[0 if element == "float" else 1]
    attributes = {key: ELEMENTS[element](v) for key, v in ATTRIBUTES.get(op, {}).items()}
    with np.errstate(all="ignore"):
        exact = true(x.astype(wider(element)), **attributes)
    assert_within(bound, operation(name, element, op)(x), exact, element, [x])


def multiples(element):
    """The numbers next to the multiples of π/2 up to 1e4."""
    half = np.longdouble("1.5707963267948966192313216916397514421")
    dtype = ELEMENTS[element]
    n = np.arange(-6366, 6367).astype(np.longdouble)
    middle = (n * half).astype(dtype)
    return np.concatenate(
        [middle, np.nextafter(middle, dtype(0)), np.nextafter(middle, dtype(inf))]
    )


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_softplus_of_any_beta_is_right_far_below_zero(name, element):
    x = everywhere(element, -150 if element == "float" else -1000, 25)
    beta = float(ELEMENTS[element](0.7))
    for sign in (1, -1):
        attributes = {"beta": sign * beta, "threshold": 20.0}
        with np.errstate(all="ignore"):
            exact = true_softplus(x.astype(wider(element)), sign * wider(element)(beta), 20)
        got = operation(name, element, "softplus", attributes)(x)
        assert_within(4.0, got, exact, element, [x])


def powers(element, kind):
    """Bases and exponents of results all over the range."""
    draw = np.random.default_rng(1)
    top = 128 if element == "float" else 1024
    count = 100_000
    if kind == "moderate":
        return draw.uniform(0, 10, count), draw.uniform(-5, 5, count)
    if kind == "negative":
        return -draw.uniform(0, 10, count), draw.integers(-30, 30, count).astype(float)
    if kind == "wide":
        a = np.exp2(draw.uniform(-top * 1.1, top, count))
    elif kind == "near one":
        a = draw.uniform(0.5, 2, count)
    else:
        a = 1 + draw.uniform(-1, 1, count) * 2.0 ** draw.uniform(-16, -3, count)
    a = a.astype(ELEMENTS[element]).astype(float)
    a = np.where((a == 0) | (a == 1), 2.0, a)
    return a, draw.uniform(-1.16 * top, 1.01 * top, count) / np.log2(a)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("kind", ["moderate", "negative", "wide", "near one", "nearer one"])
def test_powers_are_right_to_the_last_digits(name, element, kind):
    dtype = ELEMENTS[element]
    a, b = (one.astype(dtype) for one in powers(element, kind))
    with np.errstate(all="ignore"):
        exact = np.power(a.astype(wider(element)), b.astype(wider(element)))
    bound = 0.6 if element == "float" else 2.5
    assert_within(bound, operation(name, element, "pow")(a, b), exact, element, [a, b])


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0])
def test_simple_exponents_are_as_right_as_the_general_ones(name, element, exponent):
    x = everywhere(element, -5, 5)
    x = x[x > 0] if exponent % 1 else x
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(wider(element)), wider(element)(exponent))
    call = mapped(name, element, 1, lambda v, a: emit(v, "pow", [a, v.constant(exponent)], {}))
    assert_within(2.1 if exponent == -2 else 1.6, call(x), exact, element, [x])
    ends = np.asarray(ENDS, ELEMENTS[element])
    expected = torch.from_numpy(ends).repeat(64).pow(exponent)[: len(ends)]
    assert_same_ends(call(ends), expected, element, [ends])


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_tanh_and_sigmoid_never_leave_their_range(name, element):
    x = everywhere(element, -25, 25)
    assert np.abs(operation(name, element, "tanh")(x)).max() == 1
    sigmoid = operation(name, element, "sigmoid")(x)
    assert sigmoid.max() == 1
    assert sigmoid.min() == 0
    assert not np.signbit(sigmoid).any()


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_sin_and_cos_of_large_arguments_stay_sensible(name, element):
    draw = np.random.default_rng(2)
    sine, cosine = operation(name, element, "sin"), operation(name, element, "cos")
    x = (10.0 ** draw.uniform(4, 38, 50_000)).astype(ELEMENTS[element])
    square = sine(x).astype(float) ** 2 + cosine(x).astype(float) ** 2
    assert np.abs(square - 1).max() < 1e-2
    x = x[x < 1e5]
    assert_within(3.0, sine(x), np.sin(x.astype(wider(element))), element, [x])


# What comes out at the ends, as torch has it.

ENDS = (
    0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e-40, -1e-40, 0.5, -0.5, 3.0, -3.0, 20.0, -20.0, 21.0,
    -60.0, 100.5, 1e30, -1e30, inf, -inf, nan,
)  # fmt: skip


def torch_ends(element, op, *arrays, **attributes):
    """torch's results, its vector loops having at least a vector to run on."""
    kind = torch.float32 if element == "float" else torch.float64
    tensors = [torch.tensor(one, dtype=kind).repeat(64) for one in arrays]
    return ALL_OPERATIONS[op].evaluate(*tensors, **attributes)[: len(arrays[0])]


def assert_same_ends(got, expected, element, arguments):
    expected = expected.double().numpy()
    far = units(got, expected, element)
    zeros = (got == 0) & (expected == 0) & (np.signbit(got) != np.signbit(expected))
    bad = [
        tuple(one[i] for one in (*arguments, got, expected))
        for i in np.flatnonzero((far > 4) | zeros)
    ]
    assert not bad, f"arguments, ours, torch's: {bad[:5]}"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        *((op, {}) for op in ("sigmoid", "tanh", "relu", "exp", "log", "sqrt", "abs", "neg")),
        *((op, {}) for op in ("sin", "cos", "hardsigmoid")),
        *(("leaky_relu", {"slope": slope}) for slope in (0.25, 0.0, -0.5)),
        *(("elu", {"alpha": alpha}) for alpha in (1.0, 1.5, 0.0, -1.0)),
        *(("softplus", {"beta": b, "threshold": 20.0}) for b in (1.0, 0.5, -2.0, 0.7, 0.0)),
        ("softplus", {"beta": 1.0, "threshold": -5.0}),
        *(
            ("clamp", {"low": low, "high": high})
            for low, high in ((0.0, 1.0), (1.0, -1.0), (-inf, 0.5), (-0.5, inf), (nan, 1), (0, nan))
        ),
    ],
)
def test_the_ends_are_torchs(name, element, op, attributes):
    x = np.asarray(ENDS, ELEMENTS[element])
    if op in ("sin", "cos"):
        x = x[~((np.abs(x) > 1e4) & np.isfinite(x))]
    if attributes.get("beta") == 0.7:  # torch's rounding of beta·x is many units of the result
        x = x[~((np.abs(x) > 3) & np.isfinite(x))]
    expected = torch_ends(element, op, x, **attributes)
    got = operation(name, element, op, attributes)(x)
    assert_same_ends(got, expected, element, [x])


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("op", [op for op in BINARY if op != "eq"] + ["eq"])
def test_the_ends_of_pairs_are_torchs(name, element, op):
    more = (2.0**23 + 1, -(2.0**24) - 2, 2.0**52 + 1, 2.0**53 - 1, 2.5, -2.0, 1e-45)
    ends = np.asarray(ENDS + more, ELEMENTS[element])
    a, b = (one.ravel().copy() for one in np.meshgrid(ends, ends))
    expected = torch_ends("double" if op == "pow" else element, op, a, b)
    if op == "pow" and element == "float":
        expected = expected.float()
    got = operation(name, element, op)(a, b)
    assert_same_ends(got, expected.double(), element, [a, b])


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("op", ["minimum", "maximum"])
def test_the_lesser_of_a_constant_keeps_nan_too(element, op):
    x = np.asarray(ENDS, ELEMENTS[element])
    for turned in (False, True):
        for number in (0.5, nan):
            expected = torch_ends(element, op, x, np.full_like(x, number))

            def body(v, a, turned=turned, number=number):
                pair = [a, v.constant(number)]
                return emit(v, op, pair[::-1] if turned else pair, {})

            assert_same_ends(mapped("plain", element, 1, body)(x), expected, element, [x])


def test_comparisons_count_as_numbers_and_choose():
    def count(v, a, b):
        above, same = emit(v, "gt", [a, b], {}), emit(v, "eq", [a, b], {})
        both = emit(v, "add", [above, same], {})  # of two truths torch's sum is a truth
        return emit(v, "mul", [both, emit(v, "add", [above, a], {})], {})

    a, b = np.array([1.0, 2.0, 3.0, nan]), np.array([2.0, 2.0, 2.0, 2.0])
    got = mapped("plain", "double", 2, count)(a, b)
    assert got[:3].tolist() == [0, 2, 4]
    assert np.isnan(got[3])

    def choose(v, a, b):
        nearer = emit(v, "where", [emit(v, "lt", [a, b], {}), emit(v, "ge", [a, b], {}), a], {})
        return emit(v, "where", [a, nearer, b], {})

    got = mapped("plain", "double", 2, choose)(np.array([0.0, 1.0, 5.0, nan]), np.full(4, 3.0))
    assert got[:3].tolist() == [3, 0, 5]
    assert np.isnan(got[3])


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("op", ["sigmoid", "tanh", "exp", "softplus", "log", "sin", "pow"])
def test_results_do_not_depend_on_the_width(element, op):
    arity = ARITY.get(op, 1)
    arrays = [everywhere(element, -50, 50), everywhere(element, -60, 40)[::-1]][:arity]
    machines = [n for n in ("avx512", "avx2") if machine.runs_here(machine.named(n))]
    if not machines:
        pytest.skip("this processor has no fused multiply-add")
    wide = operation(machines[0], element, op)(*arrays)
    for name, lanes in (
        (machines[-1], None),
        (machines[0], 1),
        (machines[0], 2),
        (machines[-1], 3),
    ):
        other = operation(name, element, op, lanes=lanes)(*arrays)
        same = (wide == other) & (np.signbit(wide) == np.signbit(other))
        assert (same | (np.isnan(wide) & np.isnan(other))).all(), (name, lanes)


@pytest.mark.parametrize("name", [*MACHINES, "neon"])
@pytest.mark.parametrize("element", ELEMENTS)
def test_nothing_is_called(name, element):
    on = machine.named(name)
    for op in ELEMENTWISE:

        def body(v, *xs, op=op):
            return emit(v, op, xs, ATTRIBUTES.get(op, {}))

        written = engine.assembly(loop_text(on, element, ARITY.get(op, 1), body), on)
        calls = re.findall(r"^\s*(?:call|callq|bl|blr|jmp|jmpq|b)\s+(?!\.L|LBB)\S+", written, re.M)
        assert not calls, f"{op}: {calls}"
        assert "ret" in written


def test_every_elementwise_operation_of_the_language_is_there():
    assert set(ALL_OPERATIONS) - set(WHOLE) - set(ELEMENTWISE) == set()


def test_what_cannot_be_written_is_said():
    builder = ir.IRBuilder()
    with pytest.raises(InputError, match=r"'half'; vectors hold 'float' or 'double'"):
        Vectors(builder, "half", 4)
    with pytest.raises(InputError, match="lanes is 0"):
        Vectors(builder, "float", 0)
    with pytest.raises(InputError, match=r"'softmax' does not go element by element"):
        emit(Vectors(builder, "float", 4), "softmax", [], {})


def test_a_constant_is_known_for_one():
    v = Vectors(ir.IRBuilder(), "float", 4)
    assert splat(v.constant(2.0)) == 2
    assert splat(ir.Constant(v.type, [1.0, 2.0, 1.0, 1.0])) is None
    assert splat(ir.Constant(v.type, ir.Undefined)) is None
