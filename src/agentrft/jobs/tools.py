"""A job's tools, live: its bindings under its guardrails."""

from __future__ import annotations

from pathlib import Path

from agentrft.jobs.spec import JobSpec
from agentrft.net.policy import NetworkPolicy
from agentrft.tools import JobTools, Shaping, ToolLimits, load_policy, open_toolset
from agentrft.tools.guardrails.approval import Place


async def open_tools(
    spec: JobSpec,
    base_dir: Path,
    limits: ToolLimits | None = None,
    *,
    template_tokens: tuple[str, ...] = (),
    place: Place = "sandbox",
    network: NetworkPolicy | None = None,
) -> JobTools:
    """The tools of a job, for an episode at a time; close them.

    `template_tokens` are the model's control tokens, which are taken out of outputs. `place` is `sandbox` where
    episodes are played and `production` where users are served; guardrails may differ. `network` says which addresses
    may be asked; what a person at the keyboard may reach when it is left out. Raises UserError (`param` begins with
    `agent.tools` or `guardrails`) for what cannot be used.
    """
    policy = load_policy(spec.guardrails, base_dir, place=place)
    shaping = Shaping(outputs=spec.agent.outputs, template_tokens=template_tokens)
    return await open_toolset(
        spec.agent.tools,
        base_dir,
        limits,
        policy=policy,
        shaping=shaping,
        docs=spec.agent.tool_docs,
        network=network,
    )
