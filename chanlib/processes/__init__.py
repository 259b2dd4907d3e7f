"""Channels between processes: the same operations, the same errors, beside any other in `select`.

from chanlib.processes import open_process_channel
"""

from .calls import WorkerFuture as WorkerFuture
from .ends import ProcessChannel as ProcessChannel
from .ends import ProcessReceiver as ProcessReceiver
from .ends import ProcessSender as ProcessSender
from .ends import open_process_channel as open_process_channel
from .events import ProcessEvent as ProcessEvent
from .futures import ProcessFuture as ProcessFuture
from .futures import ProcessPromise as ProcessPromise
from .futures import open_process_future as open_process_future
from .leases import Lease as Lease
from .pool import WorkerPool as WorkerPool
from .semaphores import ProcessLock as ProcessLock
from .semaphores import ProcessSemaphore as ProcessSemaphore
from .semaphores import ProcessSemaphoreStatistics as ProcessSemaphoreStatistics
from .works import BrokenPool as BrokenPool
