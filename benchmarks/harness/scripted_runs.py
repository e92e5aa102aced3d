"""Scripted agents for what a small model never shows: long plans, parallel calls, JSON and other languages.

They play through the product's own rollout and path of calls. Seed 0 is a shop in English whose tools answer in JSON,
seed 1 a clinic in Spanish whose tools answer in sentences. Each run forces one behaviour on two fifths of its episodes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

from agentrft.protocols import EpisodeRecord, ToolContext
from agentrft.rollout import Agent, ChatActor, EpisodeKey, Limits, run_episode
from agentrft.store.codec import to_json
from agentrft.testing import ScriptedChatModel
from agentrft.tools import JobTools
from agentrft.tools.source import Hints
from agentrft.types import Episode, Grade, Item, Message, ToolCall, ToolSpec

FOLDER = Path.home() / ".cache" / "agentrft-bench" / "detectors" / "scripted"
ITEMS, MEMBERS = 6, 8


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """One task in two dresses: find a person, list what is theirs, look at one, change it, say its figure."""

    tools: Sequence[str]
    """Names: find, list, look, change, and one that leads nowhere."""
    args: Sequence[str]
    """Argument names: who, person id, thing id, figure, text."""
    people: Sequence[str]
    things: Sequence[str]
    prefix: str
    prompt: str
    as_json: bool
    said: str
    missing: str
    refusals: Sequence[str]


SHOP = World(
    tools=("find_customer", "list_orders", "get_order", "refund_order", "browse_catalog"),
    args=("name", "customer_id", "order_id", "amount", "text"),
    people=("Ana Silva", "Bo Larsen", "Chen Wei", "Dora Nagy", "Emil Roth", "Fay Okafor"),
    things=("lamp", "chair", "vase", "mirror", "tray", "desk"),
    prefix="ORD",
    prompt="Refund the {thing} that {person} ordered. What was the amount?",
    as_json=True,
    said="{figure}",
    missing="order {id} not found",
    refusals=("I'm sorry, but I can't help with refunds.", "I cannot assist with that request."),
)
CLINIC = World(
    tools=("buscar_paciente", "ver_citas", "consultar_cita", "cancelar_cita", "hojear_folleto"),
    args=("nombre", "paciente", "cita", "sala", "texto"),
    people=("José Muñoz", "Inés Ibáñez", "Óscar Peña", "Lucía Núñez", "Ángel Río", "Begoña Ruiz"),
    things=("análisis", "radiografía", "vacuna", "revisión", "cirugía", "terapia"),
    prefix="CT",
    prompt="Cancela la cita de {thing} de {person}. ¿En qué sala era?",
    as_json=False,
    said="La sala era {figure}.",
    missing="no existe la cita {id}",
    refusals=("Lo siento, no puedo ayudar con eso.", "抱歉，我无法协助取消预约。"),
)
WORLDS = (SHOP, CLINIC)


def items_of(world: World) -> list[Item]:
    """Six people with three things each."""
    rng = random.Random(world.prefix)
    items = []
    for place, person in enumerate(world.people[:ITEMS]):
        rows = {}
        for thing in rng.sample(list(world.things), 3):
            figure = (
                f"{rng.randint(100, 989) / 10:.1f}" if world.as_json else f"{rng.choice('BCD')}-{rng.randint(10, 99)}"
            )
            rows[f"{world.prefix}-{rng.randint(1000, 9999)}"] = [thing, figure]
        wanted = rng.choice(list(rows))
        prompt = world.prompt.format(thing=rows[wanted][0], person=person)
        fields = {
            "person": f"u-{rng.randint(100, 999)}",
            "name": person,
            "rows": rows,
            "wanted": wanted,
            "answer": rows[wanted][1],
        }
        items.append(Item(id=f"s{place}", messages=(Message(role="user", content=prompt),), fields=fields))
    return items


class _Tool:
    """One function as a tool."""

    def __init__(self, spec: ToolSpec, function: Callable[[Mapping[str, Any], Item], str]) -> None:
        self.spec, self._function = spec, function

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> str:
        return self._function(arguments, context.item)


class _Source:
    """The tools of a world; they keep no state, because what was changed is read from the calls."""

    can_snapshot = False

    def __init__(self, world: World) -> None:
        self._world = world
        self.tools = [_Tool(spec, function) for spec, function in zip(self._specs(), self._functions(), strict=True)]
        self.specs = [tool.spec for tool in self.tools]
        self.names = [spec.name for spec in self.specs]

    def _specs(self) -> list[ToolSpec]:
        who, person, thing, figure, text = self._world.args
        wanted = [
            {who: "string"},
            {person: "string"},
            {thing: "string"},
            {thing: "string", figure: "string"},
            {text: "string"},
        ]
        return [
            ToolSpec(
                name=name,
                description=name.replace("_", " "),
                parameters={
                    "type": "object",
                    "properties": {key: {"type": kind} for key, kind in properties.items()},
                    "required": list(properties),
                    "additionalProperties": False,
                },
            )
            for name, properties in zip(self._world.tools, wanted, strict=True)
        ]

    def _functions(self) -> list[Callable[[Mapping[str, Any], Item], str]]:
        world, (who, person, thing, figure, _) = self._world, self._world.args

        def row(arguments: Mapping[str, Any], item: Item) -> list[str]:
            if arguments[thing] not in item.fields["rows"]:
                raise ValueError(world.missing.format(id=arguments[thing]))
            return item.fields["rows"][arguments[thing]]

        def find(arguments: Mapping[str, Any], item: Item) -> str:
            is_there = arguments[who].split()[0] in item.fields["name"]
            found = {person: item.fields["person"], who: item.fields["name"]} if is_there else {}
            return (
                json.dumps(found)
                if world.as_json
                else f"paciente {item.fields['person']}"
                if is_there
                else "sin resultados"
            )

        def listed(arguments: Mapping[str, Any], item: Item) -> str:
            rows = item.fields["rows"].items()
            if world.as_json:
                return json.dumps({"orders": [{"id": k, "product": v[0]} for k, v in rows]})
            return "\n".join(f"{k}: {v[0]}" for k, v in rows)

        def look(arguments: Mapping[str, Any], item: Item) -> str:
            what, value = row(arguments, item)
            return json.dumps({"product": what, figure: value}) if world.as_json else f"{what}, sala {value}"

        def change(arguments: Mapping[str, Any], item: Item) -> str:
            row(arguments, item)
            return json.dumps({"status": "done"}) if world.as_json else "hecho"

        return [find, listed, look, change, lambda arguments, item: "…" if world.as_json else "nada"]

    def hints(self, name: str) -> Hints:
        return Hints(writes=name == self._world.tools[3])

    def timeout_s(self, name: str) -> float | None:
        return None

    async def open(self, item: Item, trace_id: str, timeout_s: float) -> _Session:
        return _Session(self.tools)

    async def close(self) -> None:
        """Nothing to release."""


class _Session:
    def __init__(self, tools: Sequence[_Tool]) -> None:
        self.tools = tools

    async def state_hash(self) -> None:
        return None

    async def snapshot(self) -> object:
        return None

    async def restore(self, snapshot: object) -> None:
        """No state."""

    async def close(self) -> None:
        """Nothing to release."""


Turns = list[list[tuple[str, dict[str, Any]]] | str]
"""Calls side by side, or the answer."""


def plan_of(world: World, item: Item, rng: random.Random) -> Turns:
    """A right episode; now and then with a second look side by side, or one more listing."""
    find, listing, look, change, _ = world.tools
    who, person, thing, figure, _ = world.args
    wanted, rows = item.fields["wanted"], item.fields["rows"]
    looks = [(look, {thing: wanted})]
    if rng.random() < 0.3:
        looks.append((look, {thing: rng.choice([one for one in rows if one != wanted])}))
    turns: Turns = [[(find, {who: item.fields["name"]})], [(listing, {person: item.fields["person"]})], looks]
    turns += [[(change, {thing: wanted, figure: rows[wanted][1]})], world.said.format(figure=rows[wanted][1])]
    return turns


def _with_wrong_tool(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    return [turns[0], [(world.tools[4], {world.args[4]: item.fields["name"]})], world.said.format(figure="77.7")], {
        "early_stop",
        "missing_step",
    }


def _without_a_look(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    wrong = "55.5" if world.as_json else "B-00"
    change = [(world.tools[3], {world.args[2]: item.fields["wanted"], world.args[3]: wrong})]
    return [*turns[:2], change, world.said.format(figure=wrong)], {"unsafe_write"}


def _with_wrong_write(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    other = rng.choice([one for one in item.fields["rows"] if one != item.fields["wanted"]])
    change = [(world.tools[3], {world.args[2]: other, world.args[3]: item.fields["rows"][other][1]})]
    return [*turns[:3], change, world.said.format(figure=item.fields["rows"][other][1])], {"ignored_output"}


def _with_made_up_id(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    free = next(
        f"{world.prefix}-{n}"
        for n in rng.sample(range(1000, 9999), 50)
        if f"{world.prefix}-{n}" not in item.fields["rows"]
    )
    return [turns[0], [(world.tools[2], {world.args[2]: free})], world.said.format(figure="12.3")], {
        "early_stop",
        "missing_step",
    }


def _with_loop(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    again = [turns[1]] * rng.randint(3, 4)
    return [turns[0], *again, world.said.format(figure="12.3")], {"early_stop", "missing_step", "ignored_output"}


def _stopped_early(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    return [*turns[: rng.randint(0, 2)], world.said.format(figure="12.3")], {"missing_step"}


def _that_ignores(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    return [*turns[:4], world.said.format(figure="12.3" if world.as_json else "B-00")], set()


def _that_refuses(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    return [*turns[: rng.randint(0, 2)], rng.choice(world.refusals)], {"early_stop", "missing_step"}


def _with_call_as_text(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    name, arguments = turns[1][0]
    texts = (json.dumps({"name": name, "arguments": arguments}), f'<tool_call>{{"name": "{name}"}}</tool_call>')
    return [turns[0], rng.choice(texts)], {"early_stop", "missing_step"}


def _with_unknown_tool(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    name = rng.choice((world.tools[1].replace("_", "-"), "buscar", "search_web", world.tools[1] + "s"))
    return [turns[0], [(name, turns[1][0][1])], world.said.format(figure="12.3")], {"early_stop", "missing_step"}


def _with_bad_arguments(world: World, item: Item, turns: Turns, rng: random.Random) -> tuple[Turns, set[str]]:
    value = item.fields["person"]
    wrong = rng.choice(({"id": value}, {}, {world.args[1]: [value]}, {world.args[1]: value, "límite": 5}))
    return [turns[0], [(world.tools[1], wrong)], world.said.format(figure="12.3")], {"early_stop", "missing_step"}


BEHAVIOURS: Mapping[str, Callable[[World, Item, Turns, random.Random], tuple[Turns, set[str]]]] = {
    "wrong_tool": _with_wrong_tool,
    "missing_step": _without_a_look,
    "unsafe_write": _with_wrong_write,
    "hallucinated_ref": _with_made_up_id,
    "loop": _with_loop,
    "early_stop": _stopped_early,
    "ignored_output": _that_ignores,
    "refusal_or_empty": _that_refuses,
    "parse_error": _with_call_as_text,
    "unknown_tool": _with_unknown_tool,
    "bad_args": _with_bad_arguments,
}


def scripted_paths(seed: int) -> list[Path]:
    """The recorded runs of a seed; played where they are not there yet (seconds)."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = [FOLDER / f"{kind}-seed{seed}.json.z" for kind in BEHAVIOURS]
    for kind, path in zip(BEHAVIOURS, paths, strict=True):
        if not path.exists():
            path.write_bytes(zlib.compress(json.dumps(asyncio.run(_play(kind, seed))).encode()))
    return paths


async def _play(kind: str, seed: int) -> dict[str, Any]:
    world, items = WORLDS[seed], items_of(WORLDS[seed])
    source = _Source(world)
    tools, episodes = JobTools({"agent.tools.0": source}), []
    for item in items:
        for member in range(MEMBERS):
            rng = random.Random(f"{kind}/{seed}/{item.id}/{member}")
            turns, is_forced, bearable = plan_of(world, item, rng), rng.random() < 0.4, set[str]()
            if is_forced:
                turns, bearable = BEHAVIOURS[kind](world, item, turns, rng)
            agent = Agent(
                actor=ChatActor(model=ScriptedChatModel(_messages(turns))), tools=tools, limits=Limits(max_turns=10)
            )
            key = EpisodeKey(run=f"scripted/{kind}/{seed}", step=0, item=item.id, member=member, attempt=0)
            episode = await run_episode(item, key, agent)
            value = float(_is_solved(world, item, episode))
            record = EpisodeRecord(
                job_id="scripted",
                phase="test",
                stage="scripted",
                episode=episode,
                grade=Grade(value=value),
                reward=value,
            )
            injected = [kind] if is_forced else []
            episodes.append({"record": to_json(record), "injected": injected, "bearable": sorted(bearable)})
    return {
        "task": "shop" if seed == 0 else "clinic",
        "fault": kind,
        "scripted": True,
        "pass_threshold": 0.5,
        "limits": {"max_turns": 10},
        "effects": {world.tools[3]: "write"},
        "tools": [dataclasses.asdict(spec) for spec in source.specs],
        "items": [dataclasses.asdict(item) for item in items],
        "episodes": episodes,
    }


def _messages(turns: Turns) -> list[Message]:
    return [
        Message(role="assistant", content=turn)
        if isinstance(turn, str)
        else Message(
            role="assistant",
            tool_calls=tuple(
                ToolCall(id=f"x{k}", name=name, arguments=json.dumps(arguments, ensure_ascii=False))
                for k, (name, arguments) in enumerate(turn)
            ),
        )
        for turn in turns
    ]


def _is_solved(world: World, item: Item, episode: Episode) -> bool:
    """The wanted thing was changed with its own figure, nothing else was, and the figure was said."""
    made = [c for turn in episode.turns for c in turn.reply.tool_calls if c.name == world.tools[3]]
    wanted = json.dumps(
        {world.args[2]: item.fields["wanted"], world.args[3]: item.fields["answer"]}, ensure_ascii=False
    )
    return [call.arguments for call in made] == [wanted] and item.fields["answer"] in (episode.answer or "")
