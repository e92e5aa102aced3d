from agentrft.audit.drift import DriftMonitor
from agentrft.testing import ScriptedGrader
from agentrft.train import rft


async def test_an_alarm_stops_training_with_its_reason_and_writes_the_event(peek, rft_plan, log, store):
    """Every item is a canary here, so the first reward above 0 stops the run; a resume stops again."""
    learner = peek.warm(peek.learner())
    items = peek.items(12)
    for item in items:
        item.fields["canary"] = True
    monitor = DriftMonitor(ScriptedGrader(lambda sample, item: 0.5))
    plan = rft_plan(items=items)
    result = await rft.train(plan, learner, peek.agent(learner), peek.grader, log, monitor=monitor)
    assert result.last.step < plan.steps
    assert result.stopped is not None
    assert "canary" in result.stopped
    [event] = [event for event in store.list_events("ftjob-t") if event["level"] == "error"]
    assert event["message"] == result.stopped
    data = event["data"]
    assert (data["name"], data["level"], data["threshold"], data["step"]) == ("canary_train", "stop", 0.0, 1)
    assert data["formula"] == "episodes with reward > 0 on items with `canary: true`"
    assert data["value"] == len(data["episode_ids"]) > 0

    again = DriftMonitor()
    resumed = await rft.train(plan, learner, peek.agent(learner), peek.grader, log, monitor=again)
    assert resumed.last.step == result.last.step + 1
    # What the alarms compare with is still the first run's first step.
    assert again.state()["start"]["ngrams"] == monitor.state()["start"]["ngrams"]
    assert again.state()["evaluations"][0] == monitor.state()["evaluations"][0]
