"""Automations as code: what Prefect's server does by itself when a night says something, or says nothing any more.

They are found again by their names and replaced only where they differ, so that setting them up twice changes nothing.
Notifications go where a notification block says (Slack, a webhook, mail: `prefect block`); without one the automations
still fire, and the event feed of the UI shows that they did.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture, TriggerTypes
from prefect.exceptions import ObjectNotFound

from catalog.errors import BadInput
from flows import events

PREFIX = "fleetplan: "
PROBE = "probe/probe"
#: A run says every 30 s that it lives (PREFECT_FLOWS_HEARTBEAT_FREQUENCY); after three that are missing it has crashed.
HEARTBEAT_S = 30
SILENCE = timedelta(seconds=3 * HEARTBEAT_S)
_ENDED = {"Crashed", "Failed", "TimedOut"}
_OF_FLEETPLAN: Any = {"prefect.resource.id": "prefect.tag.fleetplan", "prefect.resource.role": "tag"}
_RUNS: Any = {"prefect.resource.id": "prefect.flow-run.*"}


class Told(NamedTuple):
    """One notification: when, and in which words."""

    name: str
    when: str
    trigger: TriggerTypes
    subject: str
    body: str


def set_up(*, notify: str = "") -> dict[str, str]:
    """Create or replace the automations: name -> `created`, `changed` or `unchanged`.

    `notify` is a notification block, as `type-slug/name`. Raises BadInput where there is no such block, or where the
    probe is not deployed yet.
    """
    with get_client(sync_client=True) as client:
        block = block_id(client, notify) if notify else None
        return {wanted.name: _set(client, wanted) for wanted in automations(probe_id(client), block)}


def block_id(client: SyncPrefectClient, slug: str) -> UUID:
    """Find a notification block by `type-slug/name`."""
    kind, _, name = slug.partition("/")
    try:
        found = client.read_block_document_by_name(name=name, block_type_slug=kind, include_secrets=False).id
    except ObjectNotFound:
        found = None
    if found is None:
        mend = "create one in the UI under Blocks, and write it as slack-webhook/NAME"
        raise BadInput(f"no notification block {slug!r}", mend=mend)
    return found


def probe_id(client: SyncPrefectClient) -> UUID:
    """Find the deployment that probes."""
    try:
        return client.read_deployment_by_name(PROBE).id
    except ObjectNotFound:
        raise BadInput(f"no deployment {PROBE}", mend="run `fleetplan deploy`, which deploys it first") from None


def automations(probe: UUID, block: UUID | None) -> Iterator[AutomationCore]:
    """All of them."""
    parameters: Any = {"model": {"__prefect_kind": "jinja", "template": "{{ event.payload.model }}"}}
    yield AutomationCore(
        name=f"{PREFIX}probe a new model",
        description="A model that is planned for the first time is measured on the pool of the GPU nodes.",
        trigger=_on({events.REGISTERED}),
        actions=[RunDeployment(source="selected", deployment_id=probe, parameters=parameters)],
    )
    yield AutomationCore(
        name=f"{PREFIX}a silent run has crashed",
        description=f"A run that has not said for {SILENCE.seconds} s that it lives gives its place to the next.",
        trigger=_silence(),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name=None, message="It was killed, or its machine was: no sign of life."
            )
        ],
    )
    for told in _notifications():
        where = (
            "the event feed alone: name a block with fleetplan deploy --notify" if block is None else "a notification"
        )
        yield AutomationCore(
            name=f"{PREFIX}{told.name}", description=f"{told.when}. Told in {where}.", trigger=told.trigger,
            actions=[_notice(told, block)],
        )  # fmt: skip


def _notifications() -> Iterator[Told]:
    reason = "{{ event.payload.reason }}"
    yield Told(
        "an intent is unmet", "A plan cannot keep the wish of a service, or not for all of its load",
        _on({events.UNMET}), "fleetplan: {{ event.resource.name }} is unmet", reason,
    )  # fmt: skip
    yield Told(
        "a plan was refused", "A run ended without a plan on purpose: superseded, bad input, nothing known of a load",
        _on({events.REFUSED}), "fleetplan: no plan tonight", reason,
    )  # fmt: skip
    yield Told(
        "a service drifts", "A service has begun to behave otherwise than predicted", _on({events.DRIFT}),
        "fleetplan: {{ event.resource.name }} drifts",
        "{{ event.payload.phase }} of {{ event.payload.model }} on {{ event.payload.gpu }}: its latencies have shifted "
        "by a factor of e to the {{ event.payload.shift }}; probe it anew",
    )  # fmt: skip
    yield Told(
        "a plan waits for a review", "A night with ending review has proposed a plan", _on({events.ENDED["review"]}),
        "fleetplan: a plan waits for a review",
        "Plan {{ event.payload.serial }} at {{ event.payload.folder }}: run the deployment publish",
    )  # fmt: skip
    ended = EventTrigger(
        expect={f"prefect.flow-run.{state}" for state in _ENDED}, match=_RUNS, match_related=_OF_FLEETPLAN,
        posture=Posture.Reactive, threshold=1, within=timedelta(0),
    )  # fmt: skip
    yield Told(
        "a night crashed", "A run failed, crashed or took too long; the plan in force stays", ended,
        "fleetplan: {{ event.resource.name }} ended badly",
        "{{ event.event }}: the plan in force stays",
    )  # fmt: skip


def _on(expected: set[str]) -> EventTrigger:
    return EventTrigger(expect=expected, posture=Posture.Reactive, threshold=1, within=timedelta(0))


def _silence() -> EventTrigger:
    """After a heartbeat, neither another nor an end within the time of three."""
    ends = {f"prefect.flow-run.{state}" for state in (*_ENDED, "Completed", "Cancelled", "Cancelling", "Paused")}
    return EventTrigger(
        after={"prefect.flow-run.heartbeat"}, expect={"prefect.flow-run.heartbeat", *ends}, match=_RUNS,
        match_related=_OF_FLEETPLAN, for_each={"prefect.resource.id"}, posture=Posture.Proactive, threshold=1,
        within=SILENCE,
    )  # fmt: skip


def _notice(told: Told, block: UUID | None) -> ActionTypes:
    if block is None:
        return DoNothing()
    return SendNotification(block_document_id=block, subject=told.subject, body=told.body)


def _set(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Create or replace one; whether it is switched on stays as somebody may have decided."""
    known = client.read_automations_by_name(wanted.name)
    if not known:
        client.create_automation(wanted)
        return "created"
    wanted = wanted.model_copy(update={"enabled": known[0].enabled})
    if _content(known[0]) == _content(wanted):
        return "unchanged"
    client.update_automation(known[0].id, AutomationCore(**wanted.model_dump(exclude={"owner_resource"})))
    return "changed"


def _content(automation: AutomationCore) -> dict[str, Any]:
    """What it says; sets stay sets, for the server does not keep their order."""
    return AutomationCore(**automation.model_dump(exclude={"id", "owner_resource"})).model_dump()
