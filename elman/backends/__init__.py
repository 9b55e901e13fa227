"""Where a call is computed: the reference, and torch's own kernels for torch.nn's equations."""
