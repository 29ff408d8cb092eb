"""XLA's flags for a process with simulated devices."""

import os


def flags(devices: int) -> str:
    """Those that are set, and so many devices; one collective at a time, as where cores are fewer than devices two may
    wait for each other."""
    own = f"--xla_force_host_platform_device_count={devices}"
    return " ".join(
        (os.environ.get("XLA_FLAGS", ""), own, "--xla_cpu_enable_concurrency_optimized_scheduler=false")
    )
