"""The waiting core: one state machine, blind to primitives and, but for parking, to backends.

engine          chooses the engine; everything above imports from there
pure/           the reference engine: source, waiters, ops, select, ring, transfer, latch, timer
lane            what a thread knows of itself: its world, its budget
parking         which waiter parks in which world
park_asyncio    park_trio    park_threads
mailbox         wakes across threads, one post for many
"""
