"""From LLVM IR to machine code in this process, by way of an object that can be kept on disk.

A module is compiled to an object file, and that object is loaded, whether it was made now or comes
from the cache: both ways run the same bytes. llvmlite is loaded when the first kernel is wanted.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from elman.backends.cpu import cache
from elman.backends.cpu.machine import Machine, host, runs_here
from elman.errors import ElmanError, InputError

# What is done to the code, in words: a part of the cache's key.
_SETTINGS = "inline, sroa, instcombine, simplifycfg, codegen 3, pic, small"


class KernelError(ElmanError):
    """A kernel that Elman emitted cannot be compiled or loaded: a defect of Elman."""


class Code:
    """Compiled functions in memory, for as long as this object lives.

    `origin` says where they came from: "compiled", or "disk".
    """

    def __init__(self, tracker: Any, addresses: dict[str, int], origin: str):
        self._tracker, self._addresses, self.origin = tracker, addresses, origin

    def address(self, name: str) -> int:
        """Where a function begins; call it only while this object lives.

        Raises:
            KernelError: the module was not compiled with this function.
        """
        try:
            return self._addresses[name]
        except KeyError:
            raise KernelError(
                f"no function {name!r} was compiled; there are {', '.join(self._addresses)}"
            ) from None


@functools.cache
def _binding() -> ModuleType:
    """llvmlite, made ready to compile for every processor it knows."""
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.initialize_native_asmparser()  # without it LLVM ends the process at inline assembly
    return binding


@functools.cache
def _compiler() -> str:
    import llvmlite

    version = ".".join(map(str, _binding().llvm_version_info))
    return f"llvmlite {llvmlite.__version__}, LLVM {version}, {_SETTINGS}"


def _target(machine: Machine) -> Any:
    """LLVM's target machine: code that may lie anywhere, its constants beside it.

    On Windows code and constants may be loaded far apart, which takes the large code model.
    """
    binding = _binding()
    return binding.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu,
        features=machine.features,
        opt=3,
        reloc="pic",
        codemodel="jitdefault" if os.name == "nt" else "small",
        jit=True,
    )


def _line(error: Exception) -> str:
    """LLVM's words in one line of moderate length."""
    return " ".join(str(error).split())[:300]


def _optimised(ir: str, machine: Machine) -> tuple[Any, Any]:
    """The module, verified and optimised, and its target machine."""
    binding = _binding()
    try:
        module = binding.parse_assembly(ir)
        module.verify()
    except RuntimeError as error:
        raise KernelError(
            f"LLVM does not accept an emitted kernel: {_line(error)}. This is a defect of "
            "Elman: please report it, with the cell; backend='reference' runs the cell meanwhile"
        ) from None
    target = _target(machine)
    module.triple = target.triple
    module.data_layout = str(target.target_data)
    # Kernels come with their vectors and loops chosen. Against LLVM's O2 these few passes gave the
    # same speed of the products to 1 %, and took 13 ms where O2 takes 210.
    passes = binding.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(
        module, binding.create_pass_builder(target, binding.create_pipeline_tuning_options())
    )
    return module, target


def assembly(code_ir: str, machine: Machine) -> str:
    """The assembly of a module, for any machine, to read and to test.

    Args:
        code_ir: LLVM IR as text.
        machine: the processor; it need not be this computer's.

    Raises:
        KernelError: LLVM does not accept the IR.
    """
    module, target = _optimised(code_ir, machine)
    return target.emit_assembly(module)


def _object(ir: str, machine: Machine) -> bytes:
    module, target = _optimised(ir, machine)
    return target.emit_object(module)


class _Loader:
    """The process's linker of objects, and the lock under which it works."""

    def __init__(self) -> None:
        # JITLink places the sections of an object side by side, as the small code model needs.
        self.jit = _binding().create_lljit_compiler(
            _target(host()), use_jit_link=os.name != "nt", suppress_errors=True
        )
        self.count = 0

    def load(self, contents: bytes, functions: Sequence[str], origin: str) -> Code:
        self.count += 1
        library = _binding().JITLibraryBuilder().add_object_img(contents)
        library.add_current_process()  # LLVM may turn loops into calls of memset and memcpy
        for name in functions:
            library.export_symbol(name)
        tracker = library.link(self.jit, f"elman{self.count}")
        return Code(tracker, {name: tracker[name] for name in functions}, origin)


_lock = threading.RLock()
_memory: dict[bytes, Code] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _loader() -> _Loader:
    return _Loader()


def compile_module(
    key: str,
    emit: Callable[[], str],
    functions: Sequence[str],
    machine: Machine,
    *,
    cached: bool = True,
) -> Code:
    """Compile a module, or take it from memory or from disk.

    Args:
        key: what tells this module from all others: the graph as JSON, the number type, options.
            The machine, the versions and the emitting sources need not be in it.
        emit: gives the LLVM IR as text; called only where neither memory nor disk has the key.
        functions: the names of the functions to be called from outside.
        machine: the processor; it must be one that runs here.
        cached: with False, compile afresh, and keep nothing.

    Returns:
        The functions' addresses, valid while the `Code` lives.

    Raises:
        KernelError: LLVM does not accept the IR, or it lacks one of the functions.
        InputError: the machine's code cannot run on this computer.
    """
    if not runs_here(machine):
        raise InputError(
            f"kernels for {machine.name} cannot run on this processor; use machine.host()"
        )
    described = machine.describe()
    name = cache.digest(key, functions, described, _compiler())
    with _lock:
        if cached and name in _memory:
            return _memory[name]
        code = _from_disk(name, functions, described) if cached else None
        if code is None:
            contents = _object(emit(), machine)
            code = _load_fresh(contents, functions)
            if cached:
                cache.write(name, described, contents)
        if cached:
            _memory[name] = code
        return code


def _from_disk(name: bytes, functions: Sequence[str], described: str) -> Code | None:
    contents = cache.read(name, described)
    if contents is None:
        return None
    try:
        return _loader().load(contents, functions, "disk")
    except RuntimeError:  # its checksum fits, so it was written so: compile it anew
        return None


def _load_fresh(contents: bytes, functions: Sequence[str]) -> Code:
    try:
        return _loader().load(contents, functions, "compiled")
    except RuntimeError as error:
        raise KernelError(
            f"a compiled kernel cannot be loaded: {_line(error)}. This is a defect of Elman: "
            "please report it; backend='reference' runs the cell meanwhile"
        ) from None


_TRIAL = "define i64 @trial(i64 %x) { %y = add i64 %x, 1 ret i64 %y }"


@functools.cache
def available() -> str | None:
    """Why kernels cannot be compiled and run in this process, in words; None if they can.

    A small function is compiled and run, once a process.

    Example:
        >>> available() is None
        True
    """
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        return "kernels need a 64-bit little-endian processor"
    try:
        binding = _binding()
    except ImportError as error:
        return f"llvmlite cannot be imported ({error})"
    except Exception as error:  # a broken installation fails in many ways
        return f"llvmlite does not work ({type(error).__name__}: {error})"
    if binding.llvm_version_info < (20,):  # older ones do not read `ptr`
        import llvmlite

        return f"llvmlite {llvmlite.__version__} is too old; 0.45 or newer is needed"
    try:
        binding.check_jit_execution()
    except OSError:
        return "this system does not let memory be made executable"
    try:
        return _trial()
    except InputError:  # ELMAN_CPU is wrong: the user's to mend, not a reason to go on without
        raise
    except Exception as error:
        return f"a first small function could not be compiled ({type(error).__name__}: {error})"


def _trial() -> str | None:
    import ctypes

    code = compile_module("trial", lambda: _TRIAL, ["trial"], host(), cached=False)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address("trial"))
    return None if function(41) == 42 else "a first small function gave a wrong result"


_warned = False


def warn_unavailable() -> None:
    """Say once a process that the reference runs, and why; nothing where kernels can run."""
    global _warned
    reason = available()
    if reason is None or _warned:
        return
    _warned = True
    warnings.warn(
        f"Elman's CPU kernels cannot run here: {reason}. The reference runs instead, many times "
        "slower",
        RuntimeWarning,
        stacklevel=2,
    )
