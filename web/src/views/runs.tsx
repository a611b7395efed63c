import type { RunView } from "#routes";
import { call } from "../core/api";
import { usePages } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { command } from "../ui/dialog";
import { Typed } from "../ui/fields";
import { useSelection } from "../ui/selection";
import { StateChips } from "../ui/state-chips";
import { BulkBar } from "./bulk";
import { Ago, Empty, Heading, Id, Loaded, State, Table, Took, type Column } from "../ui/parts";

const STATES = ["running", "queued", "failed", "success", "cancelled"] as const;
const KINDS = ["dataset", "cron", "manual", "backfill", "replay"];

const COLUMNS: readonly Column<RunView>[] = [
  { name: "State", show: (run) => <State name={run.state} /> },
  { name: "Run", show: (run) => <RunLink run={run} /> },
  { name: "DAG", show: (run) => <a href={to("dags", run.dag_id)}>{run.dag_id}</a> },
  {
    name: "Why",
    kind: "wide",
    show: (run) => (
      <>
        {run.cause}
        {run.partition && <span class="chip">{run.partition}</span>}
        {run.tags?.map((tag) => (
          <span class="chip" key={tag}>
            {tag}
          </span>
        ))}
        {run.error && <div class="faint">{run.error}</div>}
      </>
    ),
  },
  { name: "Created", show: (run) => <Ago at={run.created_at} /> },
  { name: "Took", kind: "right", show: (run) => <Took from={run.started_at} to={run.ended_at} /> },
];

export function RunLink({ run }: { run: { run_id: string } }) {
  return (
    <a href={to("runs", run.run_id)} title={run.run_id}>
      <code>{run.run_id.slice(-8)}</code>
    </a>
  );
}

/** The list of runs, of one DAG or of all. */
export function RunList({ dag }: { dag?: string }) {
  const { query } = address.value;
  const states = query.getAll("state").filter((each) => STATES.includes(each as never));
  const asked = {
    state: states as unknown as readonly (typeof STATES)[number][],
    kind: query.getAll("kind"),
    dag: dag ?? query.get("dag") ?? undefined,
    tag: query.getAll("tag"),
    since: query.get("since") ?? undefined,
    until: query.get("until") ?? undefined,
    partition: query.get("partition") ?? undefined,
  };
  const runs = usePages(
    `runs ${JSON.stringify(asked)}`,
    (wanted, signal) => call("GET /api/v1/runs", { query: { ...asked, ...wanted } as never }, signal),
    { main: true, filter: asked.dag ? { kinds: ["run"], dags: [asked.dag] } : { kinds: ["run"] } },
  );
  const selection = useSelection();
  const columns = dag ? COLUMNS.filter((column) => column.name !== "DAG") : COLUMNS;
  return (
    <>
      <div class="filters" role="group" aria-label="Filters">
        <StateChips of={STATES.map((state) => [state] as const)} chosen={states} />
        {!dag && <Typed label="DAG" value={asked.dag} set={(text) => setQuery({ dag: text })} />}
        <label>
          Kind
          <select value={asked.kind[0] ?? ""} onChange={(event) => setQuery({ kind: event.currentTarget.value })}>
            <option value="">all</option>
            {KINDS.map((kind) => (
              <option key={kind}>{kind}</option>
            ))}
          </select>
        </label>
        <Typed label="Partition" value={asked.partition} set={(text) => setQuery({ partition: text })} />
      </div>
      <Loaded of={runs} what="runs">
        {(found) =>
          found.length ? (
            <>
              <BulkBar
                kind="runs"
                selection={selection}
                chosen={found.filter((run) => selection.chosen.has(run.run_id)).map(chosenOf)}
                filter={asked}
                done={runs.reload}
              />
              <Table
                label="Runs"
                rows={found}
                columns={columns}
                id={(run) => run.run_id}
                more={runs.more}
                selection={selection}
              />
            </>
          ) : (
            <Empty>
              <p>No run fits these filters.</p>
              <code>{command("runs", "list", asked.dag && "--dag", asked.dag)}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

function chosenOf({ run_id, cleared }: RunView) {
  return { run_id, cleared: cleared ?? 0 };
}

export function Runs() {
  return (
    <>
      <Heading title="Runs" />
      <RunList />
    </>
  );
}

export function RunFacts({ run }: { run: RunView }) {
  return (
    <>
      <State name={run.state} />
      <Id id={run.run_id} />
    </>
  );
}
