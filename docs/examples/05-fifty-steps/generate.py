"""Writes ``alice/workflow.yaml``: python3 generate.py > alice/workflow.yaml

40 ranges are counted side by side, eight steps add up five ranges each, one adds up the eight, and a last one counts
the whole range again in another cut, so that its result can be held against the sum: fifty steps, four deep.
"""

RANGES, GROUP, WIDTH = 40, 5, 2500
HEAD = """\
# Fifty steps, written by generate.py.
apiVersion: triplane.dev/v1alpha1
kind: Workflow
metadata:
  name: prime-census
  namespace: demo
spec:
  title: A census of the primes up to 100,000
  steps:
"""
STEP = """\
    - name: {name}
      objective: {objective}
      agentRef: {{name: census-taker}}
      requiredCapabilities: [census]
      review: {{capability: census-review}}
      timeoutSeconds: 120
      inputs:
"""
RANGE = """\
        - name: range
          value: '{{"from": {low}, "to": {high}}}'
"""
PARTS = """\
        - name: parts
          merge: Array
          sources:
"""


def counting(name: str, low: int, high: int) -> str:
    objective = f"Count the primes from {low} to {high}."
    return STEP.format(name=name, objective=objective) + RANGE.format(low=low, high=high)


def adding(name: str, parts: list[str]) -> str:
    objective = f"Add up {parts[0]} to {parts[-1]}."
    edges = "".join(f"            - {{step: {part}, output: census}}\n" for part in parts)
    return STEP.format(name=name, objective=objective) + PARTS + edges


def workflow() -> str:
    counts = [f"count-{number:02}" for number in range(1, RANGES + 1)]
    groups = [counts[at : at + GROUP] for at in range(0, RANGES, GROUP)]
    sums = [f"sum-{number}" for number in range(1, len(groups) + 1)]
    steps = [counting(name, 1 + WIDTH * at, WIDTH * (at + 1)) for at, name in enumerate(counts)]
    steps += [adding(name, group) for name, group in zip(sums, groups, strict=True)]
    steps.append(adding("total", sums))
    check = counting("check", 1, WIDTH * RANGES)
    steps.append(check + '      dependsOn: [total]\n      when: steps["total"].state == "completed"\n')
    return HEAD + "".join(steps)


if __name__ == "__main__":
    print(workflow(), end="")
