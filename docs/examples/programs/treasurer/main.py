"""Pays the rent by way of a ledger it can only reach through its session host."""

import json
import os

from toolbox import Refused, call, offered


def say(**line):
    print(json.dumps(line), flush=True)


with open(os.environ["TRIPLANE_WORK_ORDER"]) as file:
    order = json.load(file)
report = {"offered": offered(), "at": call("clock__now")}
report["before"] = int(call("ledger__balance", account="rent"))
say(type="progress", message=f"rent holds {report['before']}", percent=25)

try:
    call("ledger__close_account", account="cash")
except Refused as error:
    report["refused"] = str(error)
    say(type="message", role="assistant", text=f"I may not close an account: {error}")

say(type="progress", message="asking for leave to move 600", percent=50)
report["moved"] = call("ledger__transfer", source="cash", target="rent", amount=600)
report["after"] = int(call("ledger__balance", account="rent"))

path = next(item["path"] for item in order["outputs"] if item["name"] == "report")
with open(path, "w") as file:
    json.dump(report, file, indent=2)
say(
    type="reflection",
    wentWell=["the rent account is full"],
    wentBadly=["I tried to close an account, which is denied"],
    lessons=["look at what is offered before calling"],
    confidence=90,
)
