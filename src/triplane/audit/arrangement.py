"""Which bodies of a batch of append calls are new, and what each call will be told. Pure.

A call is all or nothing: one id used for another body, and none of the call's bodies is appended; the other
calls of the batch are not concerned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triplane.audit.entry import Prepared
from triplane.audit.model import Receipt
from triplane.errors import IdReused


@dataclass(frozen=True, slots=True)
class Known:
    """An id that is in the log already."""

    receipt: Receipt
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Arrangement:
    """``fresh`` is to be appended in order; ``answers`` has one item per call: receipts and positions in
    ``fresh``, or the error."""

    fresh: list[Prepared]
    answers: list[list[Receipt | int] | IdReused]

    def outcomes(self, receipts: Sequence[Receipt]) -> list[list[Receipt] | IdReused]:
        """What to tell each call once ``fresh`` has got these receipts."""
        return [
            answer
            if isinstance(answer, IdReused)
            else [receipts[item] if isinstance(item, int) else item for item in answer]
            for answer in self.answers
        ]


def arrange(calls: Sequence[Sequence[Prepared]], known: Mapping[str, Known]) -> Arrangement:
    """Sort a batch's bodies into new ones and repeats."""
    fresh: list[Prepared] = []
    places: dict[str, int] = {}
    answers: list[list[Receipt | int] | IdReused] = []
    for call in calls:
        before = len(fresh)
        answer: list[Receipt | int] = []
        try:
            answer.extend(_place(body, fresh, places, known) for body in call)
        except IdReused as error:
            for body in fresh[before:]:
                del places[body.id]
            del fresh[before:]
            answers.append(error)
        else:
            answers.append(answer)
    return Arrangement(fresh, answers)


def _place(body: Prepared, fresh: list[Prepared], places: dict[str, int], known: Mapping[str, Known]) -> Receipt | int:
    recorded = known.get(body.id)
    if recorded is not None:
        if recorded.body_sha256 != body.body_sha256:
            raise IdReused(
                f"the id {body.id} is in the log at {recorded.receipt.seq} with another body "
                f"({recorded.body_sha256.hex()}, not {body.body_sha256.hex()}): "
                "look it up and apply what is recorded"
            )
        return recorded.receipt
    place = places.get(body.id)
    if place is None:
        places[body.id] = len(fresh)
        fresh.append(body)
        return len(fresh) - 1
    if fresh[place].body_sha256 != body.body_sha256:
        raise IdReused(f"the id {body.id} is being appended with another body: look it up and apply what is recorded")
    return place
