import type { TriggerView } from "#routes";
import { call } from "../core/api";
import { usePages } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { command } from "../ui/dialog";
import { Ago, Empty, Heading, Loaded, State, Table, type Column } from "../ui/parts";

const KINDS = ["time", "trigger", "event", "watch"] as const;

const COLUMNS: readonly Column<TriggerView>[] = [
  { name: "State", show: (wait) => <State name={wait.state} /> },
  { name: "Kind", show: (wait) => wait.kind },
  {
    name: "For",
    kind: "wide",
    show: (wait) => (
      <>
        {wait.name}
        {wait.fields && Object.keys(wait.fields).length > 0 && (
          <>
            {" "}
            <code>{JSON.stringify(wait.fields)}</code>
          </>
        )}
        {wait.error && (
          <div class="state s-failed">
            {wait.error} (since <Ago at={wait.error_since} />)
          </div>
        )}
      </>
    ),
  },
  { name: "Who waits", show: (wait) => <Waiter wait={wait} /> },
  { name: "Due", show: (wait) => <Ago at={wait.due_at} /> },
  { name: "Since", show: (wait) => <Ago at={wait.since} /> },
  { name: "Triggerer", show: (wait) => wait.owner ?? "", minor: true },
];

function Waiter({ wait }: { wait: TriggerView }) {
  if (wait.run_id && wait.task_id) {
    const name = wait.map_index == null ? wait.task_id : `${wait.task_id}.${wait.map_index}`;
    return (
      <a href={to("runs", wait.run_id, "tasks", name)}>
        {wait.dag_id}.{name}
      </a>
    );
  }
  return <>{wait.dataset ?? wait.files?.join(", ")}</>;
}

export function Waits() {
  const kind = KINDS.find((each) => each === address.value.query.get("kind"));
  const waits = usePages(
    `waits ${kind}`,
    (wanted, signal) => call("GET /api/v1/triggers", { query: { kind, ...wanted } as never }, signal),
    { filter: { kinds: ["task"] }, when: (change) => change.state === "deferred", every: 10_000 },
  );
  return (
    <>
      <Heading title="Waits" />
      <div class="filters" role="group" aria-label="Filters">
        <label>
          Kind
          <select value={kind ?? ""} onChange={(event) => setQuery({ kind: event.currentTarget.value })}>
            <option value="">all</option>
            {KINDS.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      </div>
      <Loaded of={waits} what="waits">
        {(found) =>
          found.length ? (
            <Table label="Waits" rows={found} columns={COLUMNS} id={(wait) => String(wait.number)} more={waits.more} />
          ) : (
            <Empty>
              <p>No task waits, and no dataset is watched.</p>
              <code>{command("triggers", "list")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}
