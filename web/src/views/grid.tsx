/** Tasks × runs: the states of a DAG's last runs, drawn as far as they are in view. */
import type { RunsGrid as Grid, GridRunView } from "#routes";
import { Component } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { call } from "../core/api";
import { useResource } from "../core/resource";
import { address, navigate, setQuery, to } from "../core/router";
import { absolute, between, duration } from "../core/time";
import { tellingOf, wordsOf } from "../ui/bars";
import { command } from "../ui/dialog";
import { Empty, Loaded, Shape, State } from "../ui/parts";
import { cellOf, rowsOf, type GridRow } from "./grid-rows";

const ROW = 26;
const BAR = 40;
const SPARE = 8; // rows above and below what is in view
const MANY = 40; // from so many tasks on, groups are folded at first

export function RunsGrid({ dag }: { dag: string }) {
  const { query } = address.value;
  const after = query.get("after") ?? undefined;
  const found = useResource(
    `grid ${dag} ${after}`,
    (signal) => call("GET /api/v1/dags/{dag_id}/grid", { path: { dag_id: dag }, query: { after } }, signal),
    { filter: { kinds: ["run", "task", "dag"], dags: [dag] }, least: 500 },
  );
  return (
    <Loaded of={found} what="the grid">
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
  const [said, setSaid] = useState("");
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
        <Cells grid={grid} rows={rows} toggle={toggle} folded={folded} say={setSaid} />
      ) : (
        <Empty>No task has this in its name.</Empty>
      )}
      <p class="grid-said">{said || "Point at a cell, or move by the arrow keys; Enter opens."}</p>
    </>
  );
}

function Legend({ grid }: { grid: Grid }) {
  const states = new Set<string>();
  for (const run of grid.runs) {
    for (const sign of run.marks) if (sign !== " " && sign !== "+") states.add(grid.states[Number.parseInt(sign, 36)]!);
    for (const counts of Object.values(run.counts ?? {})) for (const state of Object.keys(counts)) states.add(state);
  }
  return (
    <span class="legend">
      {grid.states
        .filter((state) => states.has(state))
        .map((state) => (
          <State key={state} name={state} />
        ))}
    </span>
  );
}

interface Place {
  row: number;
  column: number;
}

function Cells(props: {
  grid: Grid;
  rows: readonly GridRow[];
  toggle: (group: string) => void;
  folded: (group: string) => boolean;
  say: (text: string) => void;
}) {
  const { grid, rows, say } = props;
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [at, setAt] = useState<Place>({ row: 0, column: grid.runs.length - 1 });
  // Keys come faster than drawings: each goes on from where the one before it has led.
  const place = useRef(at);
  const moved = useRef(false);
  const move = (next: Place) => {
    place.current = next;
    setAt(next);
  };
  useLayoutEffect(() => {
    const shown = box.current!;
    shown.scrollLeft = shown.scrollWidth; // the newest run is at the right
    setHeight(shown.clientHeight);
  }, []);
  useLayoutEffect(() => {
    if (!moved.current) return;
    box.current!.querySelector<HTMLElement>(`[data-at="${at.row} ${at.column}"]`)?.focus({ preventScroll: false });
    moved.current = false;
  }, [at]);
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + SPARE);
  const go = (next: Place) => {
    const row = Math.max(0, Math.min(rows.length - 1, next.row));
    const column = Math.max(-1, Math.min(grid.runs.length - 1, next.column));
    const shown = box.current!;
    // A row that is not drawn cannot have the focus: it is brought into view first.
    if (row * ROW < shown.scrollTop) shown.scrollTop = row * ROW;
    const below = (row + 1) * ROW + BAR + ROW - shown.clientHeight;
    if (below > shown.scrollTop) shown.scrollTop = below;
    setTop(shown.scrollTop);
    moved.current = true;
    move({ row, column });
  };
  const page = Math.max(1, Math.floor(height / ROW) - 3);
  const keys = (event: KeyboardEvent) => {
    const step = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      PageUp: [-page, 0],
      PageDown: [page, 0],
      Home: [0, -grid.runs.length],
      End: [0, grid.runs.length],
    }[event.key];
    if (!step || event.altKey || event.metaKey) return;
    event.preventDefault();
    const far = event.ctrlKey && (event.key === "Home" || event.key === "End");
    const { row, column } = place.current;
    go({ row: far ? (event.key === "Home" ? 0 : rows.length) : row + step[0]!, column: column + step[1]! });
  };
  const most = Math.max(1, ...grid.runs.map((run) => between(run.created_at, run.ended_at) ?? 0));
  return (
    <div class="grid-box" ref={box} onScroll={() => setTop(box.current!.scrollTop)}>
      <div
        role="grid"
        class="grid"
        aria-label="Tasks by run"
        aria-rowcount={rows.length + 1}
        aria-colcount={grid.runs.length + 1}
        onKeyDown={keys}
        style={{ gridTemplateRows: `${BAR}px ${rows.length * ROW}px` }}
      >
        <div role="row" class="grid-head" aria-rowindex={1}>
          <div role="columnheader" class="grid-name" aria-colindex={1}>
            Task
          </div>
          {grid.runs.map((run, index) => (
            <Head key={run.run_id} run={run} column={index} most={most} before={grid.runs[index - 1]} say={say} />
          ))}
        </div>
        <div role="rowgroup" class="grid-body">
          {rows.slice(first, last).map((row, offset) => (
            <Row
              key={row.id}
              {...props}
              row={row}
              index={first + offset}
              active={at.row === first + offset ? at.column : undefined}
              pick={(column) => {
                if (!moved.current) move({ row: first + offset, column });
              }}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

function Head(props: {
  run: GridRunView;
  column: number;
  most: number;
  before: GridRunView | undefined;
  say: (text: string) => void;
}) {
  const { run, most } = props;
  const queued = between(run.created_at, run.started_at ?? run.ended_at) ?? 0;
  const whole = between(run.created_at, run.ended_at) ?? 0;
  const scale = (ms: number) => (ms / most) * (BAR - 16);
  const other = props.before && props.before.version !== run.version;
  const words = `${run.state}, ${absolute(run.created_at)}, took ${duration(whole)}, v${run.version}: ${run.cause}`;
  return (
    <div role="columnheader" class={`grid-run s-${run.state} ${other ? "other" : ""}`} aria-colindex={props.column + 2}>
      <a
        href={to("runs", run.run_id)}
        tabIndex={-1}
        title={other ? `${words} (another version than the run before)` : words}
        aria-label={`Run ${run.run_id.slice(-8)}: ${words}`}
        onMouseEnter={() => props.say(words)}
      >
        <svg class="bars" width="10" height={BAR - 16} aria-hidden="true">
          <rect x="1" y={BAR - 16 - Math.max(2, scale(whole))} width="8" height={Math.max(2, scale(whole))} />
          {scale(queued) > 1 && (
            <rect class="waited" x="1" y={BAR - 16 - scale(queued)} width="8" height={scale(queued)} />
          )}
        </svg>
        <Shape name={run.state} />
      </a>
    </div>
  );
}

interface RowProps {
  grid: Grid;
  row: GridRow;
  index: number;
  active: number | undefined;
  toggle: (group: string) => void;
  folded: (group: string) => boolean;
  say: (text: string) => void;
  pick: (column: number) => void;
}

/** A row; while it is scrolled those that stay are not drawn anew. What it calls is the same then. */
class Row extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps): boolean {
    const { grid, row, index, active } = this.props;
    return next.grid !== grid || next.row !== row || next.index !== index || next.active !== active;
  }

  override render() {
    return drawn(this.props);
  }
}

function drawn(props: RowProps) {
  const { grid, row, index, active } = props;
  const group = row.id.slice("group ".length);
  return (
    <div role="row" class="grid-row" aria-rowindex={index + 2} style={{ top: `${index * ROW}px` }}>
      <div role="rowheader" class={`grid-name ${row.present ? "" : "gone"}`} aria-colindex={1} title={row.name}>
        {row.group ? (
          <button
            type="button"
            class="quiet"
            data-at={`${index} -1`}
            tabIndex={active === -1 ? 0 : -1}
            aria-expanded={!props.folded(group)}
            style={{ marginLeft: `${row.depth * 12}px` }}
            onClick={() => props.toggle(group)}
          >
            {props.folded(group) ? "▸" : "▾"} {row.name} <span class="faint">{row.places.length}</span>
          </button>
        ) : (
          <span data-at={`${index} -1`} tabIndex={active === -1 ? 0 : -1} style={{ marginLeft: `${row.depth * 12}px` }}>
            {row.name}
            {row.mapped && <span class="faint"> ×</span>}
          </span>
        )}
      </div>
      {grid.runs.map((run, column) => (
        <Cell key={run.run_id} {...props} run={run} column={column} here={active === column} />
      ))}
    </div>
  );
}

function Cell(props: {
  grid: Grid;
  row: GridRow;
  run: GridRunView;
  index: number;
  column: number;
  here: boolean;
  say: (text: string) => void;
  pick: (column: number) => void;
}) {
  const { grid, row, run, index, column } = props;
  const counts = cellOf(grid, run, row);
  const state = counts ? tellingOf(counts) : "none";
  const several = row.mapped || row.group;
  const what = !counts ? "not in its version" : several ? wordsOf(counts) : state.replaceAll("_", " ");
  const made = new Date(run.created_at).toISOString().slice(0, 19).replace("T", " ");
  const words = `${row.name}, run ${run.run_id.slice(-8)} of ${made} UTC: ${what}`;
  const many = row.mapped && Boolean(run.counts?.[row.places[0]!]);
  const href = row.group
    ? to("runs", run.run_id)
    : many
      ? `${to("runs", run.run_id)}?task=${encodeURIComponent(row.name)}&state=${state}`
      : to("runs", run.run_id, "tasks", row.name);
  return (
    <div role="gridcell" class={`cell s-${state} ${several ? "several" : ""}`} aria-colindex={column + 2}>
      <a
        {...(counts && { href })}
        data-at={`${index} ${column}`}
        tabIndex={props.here ? 0 : -1}
        aria-label={words}
        onMouseEnter={() => props.say(words)}
        onFocus={() => {
          props.say(words);
          if (!props.here) props.pick(column);
        }}
        onKeyDown={(event) => {
          if (event.key === " " && counts) {
            event.preventDefault();
            navigate(href);
          }
        }}
      >
        {counts && <Shape name={state} />}
      </a>
    </div>
  );
}
