import type { DagView, ImportErrorView } from "#routes";
import { useState } from "preact/hooks";
import { usePages } from "../core/resource";
import { call, urlOf } from "../core/api";
import { address, setQuery, to } from "../core/router";
import { RecentRuns } from "../ui/bars";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Typed } from "../ui/fields";
import { Ago, Empty, Heading, Loaded, Shape, State, Table, type Column } from "../ui/parts";
import { StartButton } from "./start";

const COLUMNS = (done: () => void): readonly Column<DagView>[] => [
  {
    name: "DAG",
    kind: "wide",
    show: (dag) => (
      <>
        <a href={to("dags", dag.dag_id)}>{dag.dag_id}</a>
        {dag.description && <div class="faint">{dag.description}</div>}
      </>
    ),
  },
  {
    name: "Starts",
    kind: "wide",
    show: (dag) => (
      <>
        {dag.schedule ? <code>{dag.schedule}</code> : <span class="faint">when it is started by hand</span>}
        {dag.next_tick && (
          <>
            {" "}
            <Ago at={dag.next_tick} />
          </>
        )}
        {dag.import_error && (
          <div class="state wrap s-failed">
            <Shape name="failed" /> {dag.import_error}
          </div>
        )}
        {!dag.present && <div class="state s-skipped">not in the DAGs folder</div>}
      </>
    ),
  },
  {
    name: "Last run",
    show: (dag) =>
      dag.last_run ? (
        <>
          <a href={to("runs", dag.last_run.run_id)}>
            <State name={dag.last_run.state} />
          </a>{" "}
          <Ago at={dag.last_run.created_at} />
        </>
      ) : (
        <span class="faint">never ran</span>
      ),
  },
  {
    name: "Last 20 runs",
    minor: true,
    show: (dag) => <RecentRuns runs={dag.recent_runs ?? []} />,
  },
  {
    name: "Now",
    minor: true,
    show: (dag) => (
      <span class="number">
        {[dag.active_runs && `${dag.active_runs} running`, dag.queued_runs && `${dag.queued_runs} queued`]
          .filter(Boolean)
          .join(", ")}
      </span>
    ),
  },
  { name: "Owner", minor: true, show: (dag) => [dag.owner, ...(dag.tags ?? [])].filter(Boolean).join(" · ") },
  {
    name: "Actions",
    show: (dag) => (
      <span class="actions">
        <StartButton dag={dag.dag_id} />
        <PauseButton dag={dag} done={done} />
      </span>
    ),
  },
];

export function Dags() {
  const { query } = address.value;
  const asked = {
    text: query.get("text") ?? undefined,
    tag: query.get("tag") ?? undefined,
    owner: query.get("owner") ?? undefined,
    paused: query.get("paused") === "true" ? true : undefined,
  };
  const [broken, setBroken] = useState<readonly ImportErrorView[]>([]);
  const found = usePages(
    `dags ${JSON.stringify(asked)}`,
    async (wanted, signal) => {
      const page = await call("GET /api/v1/dags", { query: { ...asked, ...wanted, recent: 20 } as never }, signal);
      setBroken(page.import_errors ?? []);
      return page;
    },
    { main: true, filter: { kinds: ["run", "dag", "import"] }, least: 1000 },
  );
  return (
    <>
      <Heading title="DAGs" />
      <div class="filters" role="group" aria-label="Filters">
        <label>
          Name
          <input
            type="search"
            value={query.get("text") ?? ""}
            onInput={(event) => setQuery({ text: event.currentTarget.value })}
          />
        </label>
        <Typed label="Tag" value={asked.tag} set={(text) => setQuery({ tag: text })} />
        <Typed label="Owner" value={asked.owner} set={(text) => setQuery({ owner: text })} />
        <button
          type="button"
          class="chip"
          aria-pressed={Boolean(asked.paused)}
          onClick={() => setQuery({ paused: asked.paused ? undefined : "true" })}
        >
          <State name="paused" />
        </button>
      </div>
      <Loaded of={found} what="DAGs">
        {(dags) => (
          <>
            {broken.map((each) => (
              <details class="panel bad" key={each.file}>
                <summary>
                  <strong>{each.file}</strong> cannot be imported: {each.error}
                </summary>
                <pre class="traceback">{each.traceback ?? each.error}</pre>
              </details>
            ))}
            {dags.length ? (
              <Table
                label="DAGs"
                rows={dags}
                columns={COLUMNS(found.reload)}
                id={(dag) => dag.dag_id}
                more={found.more}
              />
            ) : (
              <Empty>
                <p>{Object.values(asked).some(Boolean) ? "No DAG fits these filters." : "There is no DAG yet."}</p>
                <code>{command("init", "my-project")}</code>
              </Empty>
            )}
          </>
        )}
      </Loaded>
    </>
  );
}

export function PauseButton({ dag, done }: { dag: DagView; done: () => void }) {
  const verb = dag.paused ? "Unpause" : "Pause";
  const path = { dag_id: dag.dag_id };
  const body = { paused: !dag.paused };
  return (
    <ActionButton
      name={verb}
      dialog={(close) => (
        <ActionDialog
          title={`${verb} ${dag.dag_id}`}
          verb={verb}
          role="operator"
          about={{ dag: dag.dag_id }}
          close={close}
          cli={command("dags", verb.toLowerCase(), dag.dag_id)}
          request={{ method: "PATCH", path: urlOf("PATCH /api/v1/dags/{dag_id}", { path }), body }}
          act={async () => {
            await call("PATCH /api/v1/dags/{dag_id}", { path, body, revision: dag.revision });
            done();
            return `${dag.dag_id} is ${dag.paused ? "no longer paused" : "paused"}.`;
          }}
        >
          <p>
            {dag.paused
              ? "Events that were held back meanwhile are evaluated, and runs may start at once."
              : "No run starts any more. Runs under way go on; events are held back until it is unpaused."}
          </p>
        </ActionDialog>
      )}
    />
  );
}
