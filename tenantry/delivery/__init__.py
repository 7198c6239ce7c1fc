"""From the journal to a handler: who reads which partition, in which order, and what is settled.

Start with three files: `lane` (the state of a partition, without any I/O), `owner` (reads a
partition into a lane, runs what the lane lets begin, writes the checkpoint) and `settlement` (what
becomes of a message that was tried). The reasons are in decision record 29.
"""
