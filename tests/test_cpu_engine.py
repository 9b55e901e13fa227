"""Compiling and loading of kernels: machines, memory, disk, and what cannot be compiled."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import pytest

from elman.backends.cpu import cache, engine
from elman.backends.cpu.machine import Machine, host, named, runs_here
from elman.errors import InputError

MACHINES = [named(name) for name in ("avx512", "avx2", "plain", "neon")]
TWICE = "define i64 @twice(i64 %x) { %y = add i64 %x, %x ret i64 %y }"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(engine, "_memory", {})
    return tmp_path / "kernels"


def call(code: engine.Code, name: str, x: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address(name))(x)


def forget() -> None:
    engine._memory.clear()


class Emitter:
    """Gives the same IR each time, and counts."""

    def __init__(self, ir: str = TWICE):
        self.ir, self.count = ir, 0

    def __call__(self) -> str:
        self.count += 1
        return self.ir


# Machines


def test_lanes_fill_the_vector():
    assert [machine.lanes("float") for machine in MACHINES] == [16, 8, 4, 4]
    assert [machine.lanes("double") for machine in MACHINES] == [8, 4, 2, 2]
    with pytest.raises(InputError, match="Did you mean 'float'"):
        host().lanes("flot")


def test_unknown_machines_are_refused(monkeypatch):
    with pytest.raises(InputError, match="Did you mean 'avx512'"):
        named("avx521")
    monkeypatch.setenv("ELMAN_CPU", "sse")
    with pytest.raises(InputError, match="ELMAN_CPU is 'sse'"):
        host()


def test_a_narrower_machine_can_be_chosen(monkeypatch):
    monkeypatch.setenv("ELMAN_CPU", "plain")
    assert host() == named("plain")
    absent = next(machine.name for machine in MACHINES if not runs_here(machine))
    monkeypatch.setenv("ELMAN_CPU", absent)
    with pytest.raises(InputError, match="does not have"):
        host()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the list of flags is Linux's")
def test_the_host_has_what_its_kernel_lists(monkeypatch):
    """LLVM's idea of the processor against the operating system's."""
    monkeypatch.delenv("ELMAN_CPU", raising=False)
    with open("/proc/cpuinfo") as file:
        flags = set(file.read().split())
    if os.uname().machine != "x86_64":
        pytest.skip("the flags are those of x86-64")
    assert runs_here(named("avx2")) == ({"avx2", "fma"} <= flags)
    assert runs_here(named("avx512")) == ({"avx512f", "avx512dq", "avx512vl", "fma"} <= flags)
    assert not runs_here(named("neon"))


_AXPY = """
define void @axpy(ptr %p) PREFER {
  %x = load <LANES x ELEMENT>, ptr %p, align 4
  %y = call <LANES x ELEMENT> @llvm.fmuladd.vLANESSHORT(<LANES x ELEMENT> %x,
      <LANES x ELEMENT> %x, <LANES x ELEMENT> %x)
  store <LANES x ELEMENT> %y, ptr %p, align 4
  ret void
}
declare <LANES x ELEMENT> @llvm.fmuladd.vLANESSHORT(<LANES x ELEMENT>, <LANES x ELEMENT>,
    <LANES x ELEMENT>)
"""


def axpy(machine: Machine, element: str) -> str:
    prefer = " ".join(f'"{name}"="{value}"' for name, value in machine.prefer.items())
    ir = _AXPY.replace("LANES", str(machine.lanes(element))).replace("PREFER", prefer)
    return ir.replace("ELEMENT", element).replace(
        "SHORT", {"float": "f32", "double": "f64"}[element]
    )


@pytest.mark.parametrize("element", ["float", "double"])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_vector_is_one_register_and_fused_where_the_machine_can(machine, element):
    text = engine.assembly(axpy(machine, element), machine)
    one = {"avx512": "vfmadd", "avx2": "vfmadd", "neon": "fmla", "plain": "mulp"}[machine.name]
    lines = [line for line in text.splitlines() if one in line]
    assert len(lines) == 1
    assert ("zmm" in text, "ymm" in text) == (machine.name == "avx512", machine.name == "avx2")
    assert "call" not in text


def test_a_product_and_a_sum_are_not_fused_unasked():
    """Rounding must not depend on how LLVM likes to combine."""
    ir = """define float @f(float %x, float %y, float %z) {
      %a = fmul float %x, %y
      %b = fadd float %a, %z
      ret float %b
    }"""
    text = engine.assembly(ir, named("avx512"))
    assert "vmulss" in text
    assert "vfmadd" not in text


# Memory and disk


def test_compiled_once_then_memory_then_disk():
    emit = Emitter()
    first = engine.compile_module("once", emit, ["twice"], host())
    assert engine.compile_module("once", emit, ["twice"], host()) is first
    forget()
    again = engine.compile_module("once", emit, ["twice"], host())
    assert (first.origin, again.origin, emit.count) == ("compiled", "disk", 1)
    assert call(first, "twice", 21) == call(again, "twice", 21) == 42
    assert len(cache.entries()) == 1


def test_uncached_keeps_nothing():
    emit = Emitter()
    for _ in range(2):
        code = engine.compile_module("fresh", emit, ["twice"], host(), cached=False)
        assert call(code, "twice", 3) == 6
    assert emit.count == 2
    assert cache.entries() == []
    engine.compile_module("fresh", emit, ["twice"], host())
    engine.compile_module("fresh", emit, ["twice"], host(), cached=False)
    assert emit.count == 4


def test_other_keys_and_machines_are_compiled_apart():
    emit = Emitter()
    here = [machine for machine in MACHINES if runs_here(machine)]
    for machine in here:
        engine.compile_module("apart", emit, ["twice"], machine)
    engine.compile_module("apart too", emit, ["twice"], host())
    assert emit.count == len(here) + 1 == len(cache.entries())


def test_a_damaged_entry_is_compiled_anew_and_mended(folder):
    emit = Emitter()
    engine.compile_module("damage", emit, ["twice"], host())
    (path,) = folder.glob("*.kernel")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes(9))
    forget()
    with pytest.warns(RuntimeWarning, match="checksum"):
        code = engine.compile_module("damage", emit, ["twice"], host())
    assert (code.origin, emit.count, call(code, "twice", 4)) == ("compiled", 2, 8)
    assert path.read_bytes() == whole


def test_an_entry_with_another_function_is_compiled_anew():
    """Its checksum fits, so it was written so; it is not what we asked for."""
    described = host().describe()
    other = engine._object(TWICE.replace("twice", "thrice"), host())
    name = cache.digest("wrong", ["twice"], described, engine._compiler())
    cache.write(name, described, other)
    code = engine.compile_module("wrong", Emitter(), ["twice"], host())
    assert (code.origin, call(code, "twice", 5)) == ("compiled", 10)
    forget()
    assert engine.compile_module("wrong", Emitter(), ["twice"], host()).origin == "disk"


def test_code_lives_as_long_as_its_object():
    """Many modules loaded and dropped: those that are kept still answer."""
    kept = []
    for number in range(50):
        ir = f"define i64 @f(i64 %x) {{ %y = add i64 %x, {number} ret i64 %y }}"
        code = engine.compile_module(str(number), Emitter(ir), ["f"], host(), cached=False)
        if number % 7 == 0:
            kept.append((number, code))
    assert [call(code, "f", 1000) for _, code in kept] == [1000 + number for number, _ in kept]


def test_two_python_threads_compile_once():
    emit, codes = Emitter(), []
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait()
        codes.append(engine.compile_module("shared", emit, ["twice"], host()))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert emit.count == 1
    assert {id(code) for code in codes} == {id(codes[0])}


def test_memset_and_memcpy_are_found():
    """LLVM may turn loops into these two; they lie far from the code."""
    ir = """
    define i64 @f(i64 %x) {
      %a = alloca i8, i64 4096
      %b = alloca i8, i64 4096
      call void @llvm.memset.p0.i64(ptr %a, i8 1, i64 %x, i1 false)
      call void @llvm.memcpy.p0.p0.i64(ptr %b, ptr %a, i64 %x, i1 false)
      %p = getelementptr i8, ptr %b, i64 8
      %v = load i64, ptr %p
      ret i64 %v
    }
    declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
    declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
    """
    text = engine.assembly(ir, host())
    assert "memset" in text
    assert "memcpy" in text
    code = engine.compile_module("memory", Emitter(ir), ["f"], host())
    assert call(code, "f", 4000) == 0x0101010101010101


# What cannot be compiled


@pytest.mark.parametrize(
    "ir",
    [
        "define i64 @f(i64 %x) { ret i32 %x }",
        "define i64 @f(i64 %x) { %y = add i64 %z, 1 ret i64 %y }",
        "define i64 @f(i64 %x) { %y = add i64 %z, 1 %z = add i64 %x, 1 ret i64 %y }",
        "nonsense",
    ],
)
def test_bad_ir_is_called_our_defect(ir):
    with pytest.raises(engine.KernelError, match=r"LLVM does not accept .* defect of Elman"):
        engine.compile_module("bad", Emitter(ir), ["f"], host())
    assert cache.entries() == []


def test_a_missing_function_is_called_our_defect():
    with pytest.raises(engine.KernelError, match=r"cannot be loaded.*absent"):
        engine.compile_module("missing", Emitter(), ["absent"], host())
    assert cache.entries() == []
    code = engine.compile_module("missing", Emitter(), ["twice"], host())
    with pytest.raises(engine.KernelError, match=r"no function 'absent'.*twice"):
        code.address("absent")


def test_a_call_of_something_unknown_is_called_our_defect():
    ir = "define i64 @f(i64 %x) { %y = call i64 @nowhere_to_be_found(i64 %x) ret i64 %y }"
    ir += "\ndeclare i64 @nowhere_to_be_found(i64)"
    with pytest.raises(engine.KernelError, match="cannot be loaded"):
        engine.compile_module("unknown", Emitter(ir), ["f"], host())


def test_code_of_another_machine_is_not_loaded():
    absent = next(machine for machine in MACHINES if not runs_here(machine))
    with pytest.raises(InputError, match=f"{absent.name} cannot run"):
        engine.compile_module("foreign", Emitter(), ["twice"], absent)


# Where kernels cannot run


def python(script: str) -> str:
    """What a fresh Python prints for a script; its warnings are printed with their category."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_elman_loads_no_compiler():
    assert "[]" in python(
        "import sys, elman, elman.backends.cpu.threads\n"
        "print([name for name in sys.modules if name.startswith('llvmlite')])"
    )


_WARN = """
from elman.backends.cpu import engine
for _ in range(3):
    engine.warn_unavailable()
print("reason:", engine.available())
"""


def test_without_llvmlite_one_warning():
    said = python("import sys; sys.modules['llvmlite'] = None\n" + _WARN)
    assert "reason: llvmlite cannot be imported" in said
    assert said.count("RuntimeWarning") == 1


# PR_SET_MDWE (65) of Linux 6.3: this process may never again make memory executable.
_SEALED = """
import ctypes
import elman, llvmlite.binding
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    print("not here")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_where_memory_may_not_be_made_executable_one_warning():
    said = python(_SEALED + _WARN)
    if "not here" in said:
        pytest.skip("this kernel cannot forbid executable memory")
    assert "reason: " in said
    assert "reason: None" not in said
    assert said.count("RuntimeWarning") == 1
