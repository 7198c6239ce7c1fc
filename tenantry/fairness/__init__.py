"""How tenants share a worker: pure algorithms on the caller's clock, without I/O.

Times are seconds of one monotonic clock, passed in as `now`.
"""
