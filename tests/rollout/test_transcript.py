from agentrft.rollout import run_episode, transcript
from agentrft.testing import ScriptedTools
from agentrft.types import Grade


async def test_a_transcript_reads_in_order(agent, item, key):
    episode = await run_episode(item, key, agent("!look", "!", "4"))
    lines = transcript(episode, Grade(value=0.5))
    assert [(line.turn, line.kind, line.text) for line in lines[:-1]] == [
        (None, "system", "S"),
        (None, "user", "Q?"),
        (1, "call", "look {}"),
        (1, "result", "seen"),
        (2, "malformed", "!"),
        (2, "error", "error: a call needs a tool name after `!`"),
        (3, "assistant", "4"),
    ]
    assert lines[-1].text == f"answered after 2 calls, {episode.wall_s:.1f} s; grade 0.500"


async def test_a_fault_says_what_failed_and_why_there_is_no_grade(agent, item, key):
    tools = ScriptedTools({"look": lambda arguments, item: "seen"}, fails=lambda call, item: True)
    episode = await run_episode(item, key, agent("!look", tools=tools))
    ending = transcript(episode, Grade(value=None, reason="fault"))[-1]
    assert ending.kind == "end"
    assert ending.text.startswith("fault after 1 call, ")
    assert ending.text.endswith("tool: scripted fault in look; no grade: fault")
