import type { EventOutcomeView, EventView, EventWithOutcomes } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { usePages, useResource } from "../core/resource";
import { address, navigate, setQuery, to } from "../core/router";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Typed } from "../ui/fields";
import { JsonField, faultOf } from "../ui/form";
import { Ago, Empty, Facts, Heading, Id, Json, Loaded, State, Table, Tabs, type Column } from "../ui/parts";
import { LazyTrace } from "./lazy";

const COLUMNS: readonly Column<EventView>[] = [
  {
    name: "Event",
    show: (event) => (
      <a href={to("events", event.event_id)} title={event.event_id}>
        <code>{event.event_id.slice(-8)}</code>
      </a>
    ),
  },
  {
    name: "Dataset",
    show: (event) => (
      <a href={`${to("events")}?dataset=${encodeURIComponent(event.dataset)}`}>{event.dataset}</a>
    ),
  },
  { name: "Partition", show: (event) => event.partition ?? "", minor: true },
  { name: "Extra", kind: "wide", show: (event) => <Brief value={event.extra} /> },
  { name: "From", show: (event) => <From event={event} /> },
  { name: "Recorded", show: (event) => <Ago at={event.recorded_at} /> },
];

function Brief({ value }: { value: unknown }) {
  const text = JSON.stringify(value);
  if (text === "{}") return <span class="faint">–</span>;
  return <code title={text}>{text.length > 120 ? `${text.slice(0, 120)}…` : text}</code>;
}

function From({ event }: { event: EventView }) {
  if (!event.run_id) return <>{event.source}</>;
  const name = event.map_index == null ? event.task_id! : `${event.task_id}.${event.map_index}`;
  return (
    <a href={to("runs", event.run_id, "tasks", name)}>
      {event.dag_id}.{event.task_id}
    </a>
  );
}

export function Events() {
  const dataset = address.value.query.get("dataset") ?? undefined;
  const events = usePages(
    `events ${dataset}`,
    (wanted, signal) =>
      call("GET /api/v1/datasets/events", { query: { dataset, ...wanted } }, signal) as Promise<{
        items: readonly EventView[];
        next?: string | null;
      }>,
    { main: true, filter: { kinds: ["dataset"] }, when: (change) => !dataset || change.dataset === dataset },
  );
  return (
    <>
      <Heading title="Events">
        <div class="actions">
          <PostEventButton dataset={dataset ?? ""} name="Post an event" />
        </div>
      </Heading>
      <div class="filters" role="group" aria-label="Filters">
        <Typed
          label="Dataset"
          value={dataset}
          placeholder="s3://lake/orders"
          size={40}
          set={(text) => setQuery({ dataset: text })}
        />
      </div>
      <Loaded of={events} what="events">
        {(found) =>
          found.length ? (
            <Table label="Events" rows={found} columns={COLUMNS} id={(event) => event.event_id} more={events.more} />
          ) : (
            <Empty>
              <p>No event {dataset ? "of this dataset" : "yet"}.</p>
              <code>{command("datasets", "emit", dataset ?? "s3://lake/orders")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

export function Event({ id }: { id: string }) {
  const found = useResource(
    `event ${id}`,
    (signal) =>
      call("GET /api/v1/datasets/events", { query: { event: id, fate: true } as never }, signal) as Promise<{
        items: readonly EventWithOutcomes[];
      }>,
    { filter: { kinds: ["run", "dag"] } },
  );
  return (
    <Loaded of={found} what="the event">
      {({ items: [event] }) => (event ? <Shown event={event} /> : <Empty>No event has this id.</Empty>)}
    </Loaded>
  );
}

function Shown({ event }: { event: EventWithOutcomes }) {
  const here = to("events", event.event_id);
  const tab = address.value.query.get("tab") === "trace" ? "trace" : "outcomes";
  return (
    <>
      <Heading title={`Event of ${event.dataset}`}>
        <div class="actions">
          <PostEventButton
            dataset={event.dataset}
            extra={event.extra}
            partition={event.partition ?? ""}
            name="Post again with changes"
          />
        </div>
      </Heading>
      <Facts
        of={[
          ["Event", <Id id={event.event_id} />],
          ["Dataset", <a href={`${to("events")}?dataset=${encodeURIComponent(event.dataset)}`}>{event.dataset}</a>],
          ["Partition", event.partition],
          ["Happened", <Ago at={event.time} />],
          ["Recorded", <Ago at={event.recorded_at} />],
          ["From", <From event={event} />],
        ]}
      />
      <Tabs
        label="Parts of the event"
        now={tab}
        tabs={[
          { id: "outcomes", name: "What became of it", href: here },
          { id: "trace", name: "Trace", href: `${here}?tab=trace` },
        ]}
      />
      {tab === "trace" ? <LazyTrace of={{ kind: "event", id: event.event_id }} /> : <Outcomes event={event} />}
    </>
  );
}

function Outcomes({ event }: { event: EventWithOutcomes }) {
  return (
    <>
      <Json value={event.extra} label="the extra" />
      <h2>What became of it</h2>
      {event.fates.length ? (
        <Table
          label="What became of it, by DAG"
          rows={event.fates}
          id={(each) => `${each.dag_id} ${each.place} ${each.partition} ${each.run_id}`}
          columns={OUTCOMES}
        />
      ) : (
        <Empty>No DAG subscribes to this dataset.</Empty>
      )}
    </>
  );
}

const OUTCOMES: readonly Column<EventOutcomeView>[] = [
  { name: "Outcome", show: (each) => <State name={each.fate} /> },
  { name: "DAG", show: (each) => <a href={to("dags", each.dag_id)}>{each.dag_id}</a> },
  {
    name: "Why",
    kind: "wide",
    show: (each) =>
      each.reason ?? (each.place != null && each.fate === "pending" ? `pending at input ${each.place + 1}` : ""),
  },
  { name: "Partition", show: (each) => each.partition ?? "", minor: true },
  {
    name: "Run",
    show: (each) =>
      each.run_id ? (
        <a href={to("runs", each.run_id)}>
          <State name={each.run_state ?? "none"} />
        </a>
      ) : (
        ""
      ),
  },
  { name: "When", show: (each) => <Ago at={each.at} /> },
];

export function PostEventButton(props: { dataset: string; name: string; extra?: unknown; partition?: string }) {
  return <ActionButton name={props.name} dialog={(close) => <PostEvent {...props} close={close} />} />;
}

function PostEvent(props: { dataset: string; extra?: unknown; partition?: string; close: () => void }) {
  const [dataset, setDataset] = useState(props.dataset);
  const [partition, setPartition] = useState(props.partition ?? "");
  const [extra, setExtra] = useState(JSON.stringify(props.extra ?? {}, null, 2));
  const fault = faultOf(extra);
  const value = fault ? {} : (JSON.parse(extra) as Record<string, unknown>);
  const body = { dataset, extra: value, ...(partition && { partition }) };
  const given = Object.keys(value).length > 0;
  return (
    <ActionDialog
      title="Post an event"
      verb="Post"
      role="operator"
      about={{ dataset: true }}
      close={props.close}
      ready={Boolean(dataset) && !fault}
      cli={command(
        ...["datasets", "emit", dataset],
        given && "--extra",
        given && JSON.stringify(value),
        partition && "--partition",
        partition,
      )}
      request={{ method: "POST", path: "/api/v1/datasets/events", body }}
      act={async () => {
        const posted = await call("POST /api/v1/datasets/events", { body });
        navigate(to("events", (posted as { ids: readonly string[] }).ids[0]!));
        return "The event is recorded.";
      }}
    >
      <label class="field">
        Dataset
        <input required value={dataset} size={40} onInput={(event) => setDataset(event.currentTarget.value.trim())} />
      </label>
      <label class="field">
        Partition
        <input value={partition} onInput={(event) => setPartition(event.currentTarget.value)} />
      </label>
      <JsonField label="Extra" text={extra} set={setExtra} />
    </ActionDialog>
  );
}
