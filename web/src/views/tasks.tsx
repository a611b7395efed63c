/** Tasks of many runs: found by a filter, cleared and marked together. */
import type { TaskView } from "#routes";
import { call } from "../core/api";
import { usePages } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { command } from "../ui/dialog";
import { Text } from "../ui/fields";
import { Ago, Empty, Heading, Loaded, State, Table, Took, type Column } from "../ui/parts";
import { useSelection } from "../ui/selection";
import { StateChips } from "../ui/state-chips";
import { BulkBar, type Chosen } from "./bulk";
import { taskName } from "./run";

const STATES = ["failed", "upstream_failed", "running", "queued", "deferred", "up_for_retry", "success", "skipped"];

const COLUMNS: readonly Column<TaskView>[] = [
  { name: "State", show: (task) => <State name={task.state} /> },
  {
    name: "Task",
    show: (task) => <a href={to("runs", task.run_id, "tasks", taskName(task))}>{taskName(task)}</a>,
  },
  { name: "DAG", show: (task) => <a href={to("dags", task.dag_id)}>{task.dag_id}</a> },
  { name: "Run", show: (task) => <a href={to("runs", task.run_id)}>{task.run_id.slice(-8)}</a> },
  {
    name: "What happened",
    kind: "wide",
    show: (task) =>
      task.error ? (
        <>
          <strong>{task.error.type}</strong>: {task.error.message}
        </>
      ) : task.waits_for ? (
        `waits for ${task.waits_for}`
      ) : (
        ""
      ),
  },
  { name: "Started", show: (task) => <Ago at={task.started_at} />, minor: true },
  { name: "Took", kind: "right", show: (task) => <Took from={task.started_at} to={task.ended_at} /> },
];

export function Tasks() {
  const { query } = address.value;
  const states = query.getAll("state").filter((each) => STATES.includes(each));
  const filter = {
    dag: query.get("dag") || undefined,
    task: query.getAll("task"),
    state: states,
    partition: query.get("partition") || undefined,
    since: query.get("since") || undefined,
  };
  const selection = useSelection();
  const tasks = usePages(
    `tasks of runs ${JSON.stringify(filter)}`,
    (wanted, signal) => call("GET /api/v1/tasks", { query: { ...filter, ...wanted } as never }, signal),
    { main: true, filter: filter.dag ? { kinds: ["task", "run"], dags: [filter.dag] } : { kinds: ["task", "run"] } },
  );
  const field = (name: string) => ({ value: query.get(name) ?? "", set: (value: string) => setQuery({ [name]: value }) });
  return (
    <>
      <Heading title="Tasks" />
      <div class="filters" role="group" aria-label="Filters">
        <StateChips of={STATES.map((state) => [state] as const)} chosen={states} />
        <Text label="DAG" {...field("dag")} />
        <Text label="Task" {...field("task")} />
        <Text label="Partition" {...field("partition")} />
      </div>
      <Loaded of={tasks} what="tasks">
        {(found) =>
          found.length ? (
            <>
              <BulkBar
                kind="tasks"
                selection={selection}
                chosen={chosenOf(found, selection.chosen)}
                filter={filter}
                done={tasks.reload}
              />
              <Table
                label="Tasks"
                rows={found}
                columns={COLUMNS}
                id={(task) => task.id}
                more={tasks.more}
                selection={selection}
              />
            </>
          ) : (
            <Empty>
              <p>No task fits these filters.</p>
              <code>{command("tasks", "list", filter.dag ? "--dag" : "--state", filter.dag ?? "failed")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

/** Return the selected tasks, run by run. */
function chosenOf(tasks: readonly TaskView[], selected: ReadonlySet<string>): Chosen[] {
  const runs = new Map<string, string[]>();
  for (const task of tasks) {
    if (!selected.has(task.id)) continue;
    runs.set(task.run_id, [...(runs.get(task.run_id) ?? []), taskName(task)]);
  }
  return [...runs].map(([run_id, chosen]) => ({ run_id, cleared: null, chosen }));
}
