"""Pools: workers that make calls. `chanlib.processes.WorkerPool` is the one of processes."""
