"""How a job may move from state to state, and who may move it. Pure: state.py applies it.

| from                                | to         | who                  | when                                       |
| ----------------------------------- | ---------- | -------------------- | ------------------------------------------ |
| queued                              | starting   | worker               | it claims the job                          |
| starting                            | running    | supervisor           | the first step is reported                 |
| starting, running                   | succeeded  | supervisor           | all steps done, last checkpoint published  |
| starting, running                   | failed     | supervisor           | the trainer reports an unrecoverable error |
| starting, running                   | pausing    | supervisor           | the user requests a pause                  |
| pausing                             | paused     | supervisor           | the processes have exited                  |
| starting, running, pausing          | cancelling | supervisor           | the user requests cancellation             |
| cancelling                          | cancelled  | supervisor           | the processes have exited                  |
| starting, running, pausing,         | recovering | supervisor,          | the attempt ended without a result, or its |
| cancelling                          |            | scheduler            | lease ran out                              |
| recovering                          | queued     | scheduler            | the back-off is over                       |
| recovering                          | paused     | scheduler            | the user requested it in the meantime      |
| recovering                          | cancelled  | scheduler, user      | the user requested it in the meantime      |
| recovering                          | failed     | scheduler            | too many attempts without progress         |
| queued                              | paused     | user                 | nothing runs                               |
| queued, paused                      | cancelled  | user                 | nothing runs                               |
| paused                              | queued     | user                 | the user resumes it                        |
"""

from typing import Literal

from app.core.models import HELD

Actor = Literal["user", "scheduler", "worker", "supervisor"]


TRANSITIONS: dict[tuple[str, str], tuple[Actor, ...]] = {
    ("queued", "starting"): ("worker",),
    ("queued", "paused"): ("user",),
    ("queued", "cancelled"): ("user",),
    ("starting", "running"): ("supervisor",),
    ("paused", "queued"): ("user",),
    ("paused", "cancelled"): ("user",),
    ("pausing", "paused"): ("supervisor",),
    ("cancelling", "cancelled"): ("supervisor",),
    ("recovering", "queued"): ("scheduler",),
    ("recovering", "paused"): ("scheduler",),
    ("recovering", "cancelled"): ("scheduler", "user"),
    ("recovering", "failed"): ("scheduler",),
    **{(state, end): ("supervisor",) for state in ("starting", "running") for end in ("succeeded", "failed")},
    **{(state, "pausing"): ("supervisor",) for state in ("starting", "running")},
    **{(state, "cancelling"): ("supervisor",) for state in ("starting", "running", "pausing")},
    **{(state, "recovering"): ("supervisor", "scheduler") for state in HELD},
}


def allowed(from_state: str, to_state: str, actor: Actor) -> bool:
    """Whether this actor may move a job so."""
    return actor in TRANSITIONS.get((from_state, to_state), ())
