"""Places where a fault test kills or blocks the process.

``TRIPLANE_FAILPOINT="name:n"`` makes the n-th passage of ``failpoint("name")`` end the process by SIGKILL: no
handler, no flush, no goodbye, as the machine's power would. ``"name:n:block:s"`` makes it hold the thread, and with it
the event loop, for s seconds. Without the variable a passage costs one comparison.

====================================  ==================================================================
name                                  where
====================================  ==================================================================
``log.append.before_commit``          the batch has its sequence numbers; COMMIT has not been sent
``log.append.after_commit``           COMMIT is acknowledged; no caller knows yet
``log.archive.before_removal``         what is archived is recorded; its rows have not been removed
``gateway.append.before``             the store's transition is made; its log entries are not
``gateway.append.after``              the entries are recorded; the caller has no answer yet
``cas.store.before_link``             the blob is whole and synced under its temporary name
``cas.store.after_link``              the blob is in its place; its folder is not synced yet
``kube.write.before``                 a create or status write is about to be sent to the API server
``kube.write.after``                  the API server has answered; nobody knows the answer yet
``sessions.before_commit``            a change of the session store is made; COMMIT has not been sent
``sessions.after_commit``             COMMIT is acknowledged; no caller knows yet
``session.claimed``                   the session host has a claim; nothing is prepared
``session.before_start``              the harness process runs; the gateway has not been told
``session.after_start``               the start is acknowledged
``session.before_record``             a journal segment is about to be sent
``session.after_record``              the segment is acknowledged; the journal still holds it
``session.before_upload``             an output is collected and hashed; it has not been sent
``session.before_finish``             everything is uploaded; the result has not been reported
``session.after_finish``              the result is acknowledged; the workspace still exists
``backup.step``                       a table is written, a blob copied, or the manifest is about to be
``restore.step``                      a blob is stored, a table loaded, the log verified
``witness.recorded``                  the witness has written a checkpoint down, and not signed it yet
====================================  ==================================================================
"""

import os
import re
import signal
import time

_VARIABLE = "TRIPLANE_FAILPOINT"
_FORM = re.compile(r"(?P<name>[^:]+):(?P<count>[1-9]\d*)(:block:(?P<seconds>\d+))?")


def _armed() -> tuple[str, int, int | None] | None:
    value = os.environ.get(_VARIABLE)
    if not value:
        return None
    form = _FORM.fullmatch(value)
    if form is None:
        raise ValueError(f'{_VARIABLE} is {value!r}, neither "name:n" with n from 1 nor "name:n:block:seconds"')
    return form["name"], int(form["count"]), int(form["seconds"]) if form["seconds"] else None


_name, _left, _block_seconds = _armed() or (None, 0, None)


def failpoint(name: str) -> None:
    """Kill or block this process if the environment asks for it here and now."""
    global _left  # noqa: PLW0603  # one count per process, by intent
    if _name is None or _name != name:
        return
    _left -= 1
    if _left == 0:
        if _block_seconds is not None:
            time.sleep(_block_seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
