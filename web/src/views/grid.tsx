/** Tasks × runs: the states of a DAG's last runs. */
import type { RunsGrid as Grid } from "#routes";
import { type Signal, useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Resource } from "../core/resource";
import { address, setQuery } from "../core/router";
import { command } from "../ui/dialog";
import { Empty, Loaded, State } from "../ui/parts";
import { Cells } from "./grid-cells";
import { rowsOf } from "./grid-rows";

const MANY = 40; // from so many tasks on, groups are folded at first

/** Its data is loaded by its caller, while this code is loaded. */
export function RunsGrid({ dag, of }: { dag: string; of: Resource<Grid> }) {
  return (
    <Loaded of={of} what="the grid">
      {(grid) =>
        grid.runs.length ? (
          <Shown grid={grid} />
        ) : (
          <Empty>
            <p>It never ran. Its tab Why says what it waits for.</p>
            <code>{command("dags", "trigger", dag)}</code>
          </Empty>
        )
      }
    </Loaded>
  );
}

function Shown({ grid }: { grid: Grid }) {
  const { query } = address.value;
  const text = query.get("text") ?? "";
  const toggled = query.getAll("fold");
  const foldedAtFirst = grid.tasks.length > MANY;
  const folded = (group: string) => toggled.includes(group) !== foldedAtFirst;
  const rows = useMemo(() => rowsOf(grid, folded, text), [grid, text, toggled.join("\n")]);
  const toggle = (group: string) =>
    setQuery({ fold: toggled.includes(group) ? toggled.filter((each) => each !== group) : [...toggled, group] });
  const said = useSignal("");
  return (
    <>
      <div class="filters" role="group" aria-label="Filters">
        <label>
          Task
          <input type="search" value={text} onInput={(event) => setQuery({ text: event.currentTarget.value })} />
        </label>
        {grid.next && (
          <button type="button" onClick={() => setQuery({ after: grid.next! })}>
            Older runs
          </button>
        )}
        {query.get("after") && (
          <button type="button" onClick={() => setQuery({ after: undefined })}>
            The newest runs
          </button>
        )}
        <Legend grid={grid} />
      </div>
      {rows.length ? (
        <Cells grid={grid} rows={rows} toggle={toggle} folded={folded} say={(text) => (said.value = text)} />
      ) : (
        <Empty>No task has this in its name.</Empty>
      )}
      <Said text={said} />
    </>
  );
}

function Legend({ grid }: { grid: Grid }) {
  const counted = new Set(grid.runs.flatMap((run) => Object.values(run.counts ?? {}).flatMap(Object.keys)));
  return (
    <span class="legend">
      {grid.states
        .filter((state, digit) => counted.has(state) || grid.runs.some((run) => run.marks.includes(digit.toString(36))))
        .map((state) => (
          <State key={state} name={state} />
        ))}
    </span>
  );
}

/** What is pointed at; it alone is drawn anew while one moves over the cells. */
function Said({ text }: { text: Signal<string> }) {
  return <p class="grid-said">{text.value || "Point at a cell, or move by the arrow keys; Enter opens."}</p>;
}
