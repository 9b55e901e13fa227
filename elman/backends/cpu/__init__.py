"""The kernels of the CPU: emitted from a cell's schedule as LLVM IR, compiled in the process."""
