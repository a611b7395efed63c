/** Datasets: the list of all, and one with its events, producers, consumers, checks and surroundings. */
import type { DatasetDetail, DatasetView, EventView, HeldEventView } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { usePages, useResource } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { duration } from "../core/time";
import { Graph, type GraphNode } from "../graph/graph";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Typed } from "../ui/fields";
import { Ago, Empty, Facts, Heading, Json, Loaded, Shape, State, Table, Tabs, type Column } from "../ui/parts";
import { PostEventButton } from "./events";

export function datasetAddress(uri: string): string {
  return to("datasets", uri);
}

function Freshness({ of }: { of: DatasetView }) {
  if (of.stale_alert != null) {
    return (
      <span class="state s-failed">
        <Shape name="failed" /> stale
      </span>
    );
  }
  if (of.fresh_seconds == null) return null;
  return (
    <span class="state s-success">
      <Shape name="success" /> fresh
    </span>
  );
}

function Held({ count }: { count: number | undefined }) {
  if (!count) return <span class="faint">none</span>;
  return (
    <span class="state s-failed">
      <Shape name="paused" /> {count > 1000 ? "more than 1,000" : count} held
    </span>
  );
}

const COLUMNS: readonly Column<DatasetView>[] = [
  {
    name: "Dataset",
    kind: "wide",
    show: (each) => (
      <>
        <a href={datasetAddress(each.dataset)}>{each.dataset}</a>
        {(each.name || each.group) && <div class="faint">{[each.group, each.name].filter(Boolean).join(" · ")}</div>}
      </>
    ),
  },
  {
    name: "Freshness",
    show: (each) => (each.fresh_seconds == null ? <span class="faint">not declared</span> : <Freshness of={each} />),
  },
  { name: "Last event", show: (each) => (each.last_event_at ? <Ago at={each.last_event_at} /> : "none yet") },
  { name: "Made by", kind: "right", minor: true, show: (each) => each.producer_count ?? 0 },
  { name: "Taken by", kind: "right", minor: true, show: (each) => each.consumers.length },
  { name: "Checks", kind: "right", minor: true, show: (each) => each.check_count || "–" },
  { name: "Held", show: (each) => <Held count={each.held} /> },
];

export function Datasets() {
  const { query } = address.value;
  const asked = {
    text: query.get("text") ?? undefined,
    held: query.get("held") === "true" || undefined,
    stale: query.get("stale") === "true" || undefined,
  };
  const found = usePages(
    `datasets ${JSON.stringify(asked)}`,
    (wanted, signal) => call("GET /api/v1/datasets", { query: { ...asked, ...wanted } as never }, signal),
    { main: true, filter: { kinds: ["dataset"] }, least: 1000 },
  );
  return (
    <>
      <Heading title="Datasets">
        <div class="actions">
          <PostEventButton dataset="" name="Post an event" />
        </div>
      </Heading>
      <div class="filters" role="group" aria-label="Filters">
        <label>
          Part of the URI
          <input
            type="search"
            value={asked.text ?? ""}
            onInput={(event) => setQuery({ text: event.currentTarget.value })}
          />
        </label>
        <button
          type="button"
          class="chip"
          aria-pressed={Boolean(asked.stale)}
          onClick={() => setQuery({ stale: asked.stale ? undefined : "true" })}
        >
          <Shape name="failed" /> stale
        </button>
        <button
          type="button"
          class="chip"
          aria-pressed={Boolean(asked.held)}
          onClick={() => setQuery({ held: asked.held ? undefined : "true" })}
        >
          <Shape name="paused" /> with held events
        </button>
      </div>
      <Loaded of={found} what="datasets">
        {(datasets) =>
          datasets.length ? (
            <Table
              label="Datasets"
              rows={datasets}
              columns={COLUMNS}
              id={(each) => each.dataset}
              more={found.more}
            />
          ) : (
            <Empty>
              <p>
                {Object.values(asked).some(Boolean)
                  ? "No dataset fits these filters."
                  : "There is no dataset yet: it begins with a DAG that names it, or with its first event."}
              </p>
              <code>{command("datasets", "emit", "s3://lake/orders")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

const NAMES: Record<string, string> = { overview: "Overview", graph: "Graph", events: "Events", held: "Held events" };

export function Dataset({ uri }: { uri: string }) {
  const found = useResource(
    `dataset ${uri}`,
    (signal) => call("GET /api/v1/datasets/detail", { query: { dataset: uri } }, signal),
    { filter: { kinds: ["dataset", "dag"] }, when: (change) => !change.dataset || change.dataset === uri, least: 1000 },
  );
  const wanted = address.value.query.get("tab") ?? "";
  const tab = wanted in NAMES ? wanted : "overview";
  const known = Boolean(found.value || !found.error);
  return (
    <>
    <Loaded of={found} what="the dataset">
      {(dataset) => (
        <>
          <Heading title={dataset.dataset}>
            <Freshness of={dataset} />
            <div class="actions">
              <PostEventButton dataset={dataset.dataset} name="Post an event" />
            </div>
          </Heading>
          {dataset.alerts.map((alert) => (
            <div class="panel bad" key={alert.id}>
              <p>
                <strong>{alert.text}</strong> <Ago at={alert.opened_at} />
              </p>
            </div>
          ))}
          <Tabs
            label="Parts of the dataset"
            now={tab}
            tabs={Object.entries(NAMES).map(([id, name]) => ({
              id,
              name: id === "held" && dataset.held ? `${name} (${dataset.held})` : name,
              href: `${datasetAddress(uri)}?tab=${id}`,
            }))}
          />
          {tab === "overview" && <Overview dataset={dataset} />}
        </>
      )}
    </Loaded>
    {/* These need no more than its name, so they load beside it. */}
    {known && tab === "graph" && <Around uri={uri} />}
    {known && tab === "events" && <DatasetEvents uri={uri} />}
    {known && tab === "held" && <HeldEvents uri={uri} />}
    </>
  );
}

const EVENTS: readonly Column<EventView>[] = [
  { name: "Event", show: (event) => <a href={to("events", event.event_id)}><code>{event.event_id.slice(-8)}</code></a> },
  { name: "Recorded", show: (event) => <Ago at={event.recorded_at} /> },
  { name: "Partition", show: (event) => event.partition ?? "", minor: true },
  {
    name: "From",
    show: (event) =>
      event.run_id ? <a href={to("runs", event.run_id)}>{event.dag_id}.{event.task_id}</a> : event.source,
  },
  { name: "Extra", kind: "wide", show: (event) => <code>{JSON.stringify(event.extra)}</code> },
  {
    name: "Held",
    minor: true,
    show: (event) => (event.held ? <span class="state s-failed"><Shape name="paused" /> {event.held}</span> : ""),
  },
];

function Overview({ dataset }: { dataset: DatasetDetail }) {
  return (
    <>
      <Facts
        of={[
          ["Name", dataset.name],
          ["Group", dataset.group],
          ["Last event", dataset.last_event_at ? <Ago at={dataset.last_event_at} /> : "none yet"],
          ["Is to have one every", dataset.fresh_seconds != null ? duration(dataset.fresh_seconds * 1000) : null],
          ["Known since", <Ago at={dataset.created_at} />],
          ["Posted by", dataset.sources.join(", ")],
        ]}
      />
      <section>
        <h2>Made by</h2>
        {dataset.producers.length ? (
          <Table
            label="Producers"
            rows={dataset.producers}
            id={(each) => `${each.dag_id} ${each.task_id}`}
            columns={[
              { name: "DAG", show: (each) => <a href={to("dags", each.dag_id)}>{each.dag_id}</a> },
              { name: "Task", kind: "wide", show: (each) => each.task_id },
              { name: "How", show: (each) => (each.declared ? "declared" : "seen in its events"), minor: true },
              { name: "Last event", show: (each) => <Ago at={each.last_event_at} /> },
            ]}
          />
        ) : (
          <p class="faint">No task declares it: its events come from outside.</p>
        )}
      </section>
      <section>
        <h2>Taken by</h2>
        {dataset.subscribers.length ? (
          <Table
            label="Consumers"
            rows={dataset.subscribers}
            id={(each) => each.dag_id}
            columns={[
              { name: "DAG", show: (each) => <a href={to("dags", each.dag_id)}>{each.dag_id}</a> },
              { name: "State", show: (each) => (each.paused ? <State name="paused" /> : "") },
              {
                name: "Pending",
                kind: "wide",
                show: (each) =>
                  each.pending ? (
                    <>
                      {each.pending} since <Ago at={each.pending_since} />
                    </>
                  ) : (
                    <span class="faint">none</span>
                  ),
              },
            ]}
          />
        ) : (
          <p class="faint">No DAG subscribes to it.</p>
        )}
      </section>
      {dataset.checks.length > 0 && (
        <section>
          <h2>Checks</h2>
          <Table
            label="Checks"
            rows={dataset.checks}
            id={(each) => each.check}
            columns={[
              { name: "Check", kind: "wide", show: (each) => <a href={to("dags", `check:${each.check}`)}>{each.check}</a> },
              { name: "State", show: (each) => (each.paused ? <State name="paused" /> : "") },
              {
                name: "Holds",
                show: (each) => (
                  <a href={`${datasetAddress(dataset.dataset)}?tab=held`}>
                    <Held count={each.held} />
                  </a>
                ),
              },
            ]}
          />
        </section>
      )}
      {Object.keys(dataset.extra).length > 0 && <Json value={dataset.extra} label="the extra" />}
      <section>
        <h2>Last events</h2>
        {dataset.last_events.length ? (
          <Table
            label="Last events"
            rows={dataset.last_events}
            columns={EVENTS}
            id={(event) => event.event_id}
            uncounted
          />
        ) : (
          <Empty>
            <p>It has had no event.</p>
            <code>{command("datasets", "emit", dataset.dataset)}</code>
          </Empty>
        )}
      </section>
    </>
  );
}

function DatasetEvents({ uri }: { uri: string }) {
  const found = usePages(
    `events of ${uri}`,
    (wanted, signal) => call("GET /api/v1/datasets/events", { query: { dataset: uri, ...wanted } as never }, signal),
    { filter: { kinds: ["dataset"] }, when: (change) => change.dataset === uri, least: 500 },
  );
  return (
    <Loaded of={found} what="its events">
      {(events) =>
        events.length ? (
          <Table
            label="Events"
            rows={events as readonly EventView[]}
            columns={EVENTS}
            id={(event) => event.event_id}
            more={found.more}
          />
        ) : (
          <Empty>It has had no event.</Empty>
        )
      }
    </Loaded>
  );
}

const MOST_NODES = 150;

/** What leads to a dataset, and what follows: some steps, never all. */
function Around({ uri }: { uri: string }) {
  const { query } = address.value;
  const steps = (name: string) => Math.min(9, Math.max(0, Number(query.get(name) ?? 2) || 0));
  const [up, down] = [steps("up"), steps("down")];
  const found = useResource(
    `graph ${uri} ${up} ${down}`,
    (signal) => call("GET /api/v1/graph", { query: { around: uri, up, down, limit: MOST_NODES } }, signal),
    { filter: { kinds: ["dag", "run"] }, least: 2000 },
  );
  return (
    <>
      <div class="filters" role="group" aria-label="How far">
        {(["up", "down"] as const).map((name) => (
          <Typed
            key={name}
            label={name === "up" ? "DAGs towards what leads to it" : "DAGs towards what follows"}
            type="number"
            min={0}
            max={9}
            value={String(name === "up" ? up : down)}
            set={(text) => setQuery({ [name]: text })}
          />
        ))}
      </div>
      <Loaded of={found} what="what is around it">
        {(graph) => {
          const nodes = graph.nodes.map((node, index): GraphNode => {
            const isDataset = node.kind === "dataset";
            const about = isDataset ? (
              node.held ? (
                <Held count={node.held} />
              ) : node.stale ? (
                <span class="state s-failed">stale</span>
              ) : (
                <small>{node.last_event_at ? <Ago at={node.last_event_at} /> : "no event yet"}</small>
              )
            ) : node.paused ? (
              <State name="paused" />
            ) : node.state ? (
              <State name={node.state} />
            ) : (
              <small>never ran</small>
            );
            const bad = node.held || node.stale ? "failed" : node.state;
            return {
              id: String(index),
              kind: node.kind,
              name: node.name,
              href: isDataset ? `${datasetAddress(node.name)}?tab=graph&up=${up}&down=${down}` : to("dags", node.name),
              ...(bad && { state: bad }),
              about,
              chosen: isDataset && node.name === uri,
            };
          });
          const edges = graph.edges.map(([one, other]) => [String(one), String(other)] as const);
          return (
            <>
              {!graph.complete && (
                <p class="reason">There is more around it: {MOST_NODES} datasets and DAGs are shown, the nearest first.</p>
              )}
              <Graph label={`What is around ${uri}`} nodes={nodes} edges={edges} />
              <details>
                <summary>The same as a list</summary>
                <Table
                  label="What is around it"
                  rows={[...graph.nodes].sort((one, other) => one.step - other.step)}
                  id={(node) => `${node.kind} ${node.name}`}
                  columns={[
                    { name: "Kind", show: (node) => (node.kind === "dag" ? "DAG" : "dataset") },
                    {
                      name: "Name",
                      kind: "wide",
                      show: (node) => (
                        <a href={node.kind === "dag" ? to("dags", node.name) : datasetAddress(node.name)}>{node.name}</a>
                      ),
                    },
                    {
                      name: "Where",
                      show: (node) =>
                        node.step === 0 ? "here" : `${Math.abs(node.step)} ${node.step < 0 ? "before" : "after"}`,
                    },
                  ]}
                />
              </details>
            </>
          );
        }}
      </Loaded>
    </>
  );
}

type Settling = "release" | "discard" | "run-again";
const SETTLE: Record<Settling, { name: string; about: string; done: string }> = {
  release: {
    name: "Release",
    about: "They reach their subscribers although a check has not passed, and runs may start at once.",
    done: "released",
  },
  discard: { name: "Discard", about: "No subscriber ever gets them.", done: "discarded" },
  "run-again": { name: "Run again", about: "The checks as they are now judge them again.", done: "checked again" },
};

function HeldEvents({ uri }: { uri: string }) {
  const found = usePages(
    `held ${uri}`,
    (wanted, signal) => call("GET /api/v1/held-events", { query: { dataset: uri, ...wanted } as never }, signal),
    { filter: { kinds: ["dataset", "run"] }, least: 500 },
  );
  const columns: readonly Column<HeldEventView>[] = [
    { name: "Event", show: (event) => <a href={to("events", event.event_id)}><code>{event.event_id.slice(-8)}</code></a> },
    { name: "Came", show: (event) => <Ago at={event.recorded_at} /> },
    {
      name: "Held by",
      kind: "wide",
      show: (event) =>
        event.checks.map((hold) => (
          <div key={hold.check} class="line">
            <a href={to("dags", `check:${hold.check}`)}>{hold.check}</a>{" "}
            <State name={hold.outcome === "error" ? "failed" : hold.outcome} /> {hold.description}
            {hold.run_id && (
              <>
                {" "}
                <a href={to("runs", hold.run_id)}>its run</a>
              </>
            )}
          </div>
        )),
    },
    { name: "Extra", minor: true, show: (event) => <code>{JSON.stringify(event.extra)}</code> },
    {
      name: "Actions",
      show: (event) => (
        <span class="actions">
          {(Object.keys(SETTLE) as Settling[]).map((action) => (
            <Settle key={action} action={action} events={[event.event_id]} uri={uri} done={found.reload} />
          ))}
        </span>
      ),
    },
  ];
  return (
    <Loaded of={found} what="held events">
      {(events) =>
        events.length ? (
          <>
            <div class="actions">
              {(Object.keys(SETTLE) as Settling[]).map((action) => (
                <Settle key={action} action={action} events={[]} uri={uri} done={found.reload} />
              ))}
            </div>
            <Table
              label="Held events"
              rows={events}
              columns={columns}
              id={(event) => event.event_id}
              more={found.more}
            />
          </>
        ) : (
          <Empty>
            <p>No check holds an event of it.</p>
            <code>{command("checks", "list")}</code>
          </Empty>
        )
      }
    </Loaded>
  );
}

/** Settles some events, or all of the dataset that checks have failed. */
function Settle(props: { action: Settling; events: readonly string[]; uri: string; done: () => void }) {
  const { action, events, uri } = props;
  const { name } = SETTLE[action];
  return (
    <ActionButton
      name={events.length ? name : `${name} all`}
      danger={action === "discard"}
      dialog={(close) => <SettleDialog {...props} close={close} title={`${name} ${events.length ? "the event" : `all held events of ${uri}`}`} />}
    />
  );
}

function SettleDialog(props: {
  action: Settling;
  events: readonly string[];
  uri: string;
  title: string;
  close: () => void;
  done: () => void;
}) {
  const { action, events, uri } = props;
  const [note, setNote] = useState("");
  const body = { ...(events.length ? { events } : { dataset: uri }), ...(note && { note }) };
  const { name, about, done } = SETTLE[action];
  const route = `POST /api/v1/held-events/${action}` as const;
  return (
    <ActionDialog
      title={props.title}
      verb={name}
      danger={action === "discard"}
      role="operator"
      close={props.close}
      cli={command("checks", action, ...events, !events.length && "--dataset", !events.length && uri, note && "--note", note)}
      request={{ method: "POST", path: route.slice(5), body }}
      act={async () => {
        const settled = await call(route, { body: body as never });
        props.done();
        return `${settled.events.length} ${done}${settled.more ? "; there are more: do it again" : ""}.`;
      }}
    >
      <p>{about}</p>
      {!events.length && <p>Those that only wait for a check, which has failed none of them, stay.</p>}
      {action !== "run-again" && (
        <label class="field">
          Why, in one line
          <input value={note} onInput={(event) => setNote(event.currentTarget.value)} />
        </label>
      )}
    </ActionDialog>
  );
}
