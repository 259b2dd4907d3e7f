"""The demo: one network of channels, its stages in asyncio, trio, plain threads and, if asked for, processes.

                 folders                                      skipped
        walk  ------------->  list          walk, hash  ------------------+
      asyncio <-------------  thread                                      v
          |      listings             paths            hashed          collect    lines
          +-------------------------------->  hash  ------------------> trio  ----------> write
                                             threads                                      thread

Every channel is bounded, so a slow stage holds back those before it and memory stays flat; only
`write` keeps all lines, since it has to sort them, and `walk` the folders yet to be read. A stage
ends when what it receives from ends, and then closes what it sends to.

One `TaskGroup` owns all stages: the threads, and those with a loop in one. If one fails, or at
Ctrl-C, it cancels them: whatever a stage waits in raises, and it ends without having closed anything.

With `--processes` the stage `hash` is made of worker processes: `paths` is a channel between processes, on which all
of them draw, and by another one they give what they have found to the thread that has started them.
"""
