"""An MCP server over stdio, in the standard library: accounts of a small firm, kept for as long as it runs."""

import json
import sys

ACCOUNTS = {"rent": 900, "wages": 4200, "cash": 1500}


def schema(**properties):
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


ACCOUNT = {"type": "string", "enum": sorted(ACCOUNTS)}
AMOUNT = {"type": "integer", "minimum": 1}
OPERATIONS = {
    "balance": ("What is on an account.", schema(account=ACCOUNT)),
    "transfer": ("Move an amount from one account to another.", schema(source=ACCOUNT, target=ACCOUNT, amount=AMOUNT)),
    "close_account": ("Close an account for good.", schema(account=ACCOUNT)),
}


def balance(account):
    return str(ACCOUNTS[account])


def transfer(source, target, amount):
    if ACCOUNTS[source] < amount:
        raise ValueError(f"{source} holds {ACCOUNTS[source]}, less than {amount}")
    ACCOUNTS[source] -= amount
    ACCOUNTS[target] += amount
    return f"moved {amount} from {source} to {target}"


def close_account(account):
    return f"closed {account} with {ACCOUNTS.pop(account)} on it"


def answer(method, params):
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "ledger", "version": "1.0"},
        }
    if method == "tools/list":
        listed = [{"name": name, "description": text, "inputSchema": s} for name, (text, s) in OPERATIONS.items()]
        return {"tools": listed}
    try:
        text, failed = globals()[params["name"]](**params["arguments"]), False
    except (KeyError, ValueError) as error:
        text, failed = str(error), True
    return {"content": [{"type": "text", "text": text}], "isError": failed}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params", {}))
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
