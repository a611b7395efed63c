/** The cells of a grid, both ways only as far as they are in view. */
import type { RunsGrid as Grid, GridRunView } from "#routes";
import { Component, type ComponentChildren, createRef } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { to } from "../core/router";
import { absolute, between, duration } from "../core/time";
import { tellingOf, wordsOf } from "../ui/bars";
import { Shape } from "../ui/parts";
import { cellOf, type GridRow, stateOf } from "./grid-rows";
import { CELL, drawings, drawSigns, releaseSigns } from "./grid-sprites";

const BAR = 40; // the height of the head
const TALL = 22; // of it, what the longest run takes
const SPARE = 6; // rows and columns around what is in view

interface Place {
  row: number;
  column: number;
}

/** What is drawn: from a row and a column on, up to others. */
interface Range {
  top: number;
  bottom: number;
  left: number;
  right: number;
}

interface Sizes {
  rows: number;
  columns: number;
}

/** Return what is drawn when it is scrolled to a place. */
function rangeOf(of: Sizes, scrolled: { top: number; left: number }, view: { height: number; width: number }): Range {
  return {
    top: Math.max(0, Math.floor(scrolled.top / CELL) - SPARE),
    bottom: Math.min(of.rows, Math.ceil((scrolled.top + view.height) / CELL) + SPARE),
    left: Math.max(0, Math.floor(scrolled.left / CELL) - SPARE),
    right: Math.min(of.columns, Math.ceil((scrolled.left + view.width) / CELL) + SPARE),
  };
}

/** Return what is probably drawn at first, of a window of this size: the newest runs are at the right. */
function firstRange(of: Sizes): Range {
  const view = { height: innerHeight * 0.72 - BAR, width: innerWidth - Math.max(128, Math.min(288, innerWidth * 0.24)) };
  return rangeOf(of, { top: 0, left: Math.max(0, of.columns * CELL - view.width) }, view);
}

function within(value: number, first: number, end: number): number {
  return Math.max(first, Math.min(end - 1, value));
}

interface Of {
  grid: Grid;
  rows: readonly GridRow[];
  toggle: (group: string) => void;
  folded: (group: string) => boolean;
  say: (text: string) => void;
}

export function Cells(props: Of) {
  const { grid, rows, say } = props;
  const sizes = { rows: rows.length, columns: grid.runs.length };
  const box = useRef<HTMLDivElement>(null);
  const table = useRef<HTMLDivElement>(null);
  const [scrolled, setScrolled] = useState<Range>(() => firstRange(sizes));
  const [at, setAt] = useState<Place>({ row: 0, column: sizes.columns - 1 });
  // Keys come faster than drawings: each goes on from where the one before it has led.
  const place = useRef(at);
  const moved = useRef(false);
  const held = useRef(false); // whether the focus was in it when it was scrolled
  const move = (next: Place) => {
    place.current = next;
    setAt(next);
  };
  const look = useRef(() => {});
  look.current = () => {
    const shown = box.current;
    if (!shown) return;
    const name = table.current!.querySelector<HTMLElement>(".grid-name")!.offsetWidth;
    const view = { height: shown.clientHeight - BAR, width: shown.clientWidth - name };
    const next = rangeOf(sizes, { top: shown.scrollTop, left: shown.scrollLeft }, view);
    const same = (Object.keys(next) as (keyof Range)[]).every((side) => next[side] === scrolled[side]);
    if (same) return;
    held.current = table.current!.contains(document.activeElement);
    setScrolled(next);
  };
  useLayoutEffect(() => {
    const shown = box.current!;
    shown.scrollLeft = shown.scrollWidth; // the newest run is at the right
    look.current();
    const watch = new ResizeObserver(() => look.current());
    watch.observe(shown);
    return () => watch.disconnect();
  }, []);
  useLayoutEffect(() => look.current(), [rows, grid]);
  useLayoutEffect(() => {
    if (!moved.current) return;
    const wanted = table.current!.querySelector<HTMLElement>(`[data-at="${at.row} ${at.column}"]`);
    if (!wanted) return; // it is drawn next
    wanted.focus({ preventScroll: true });
    moved.current = false;
  });
  useLayoutEffect(() => {
    // What had the focus was scrolled out of view: keys go on from there all the same.
    if (held.current && document.activeElement === document.body) table.current!.focus({ preventScroll: true });
  }, [scrolled]);
  const go = (next: Place) => {
    const row = within(next.row, 0, sizes.rows);
    const column = within(next.column, -1, sizes.columns);
    const shown = box.current!;
    // A cell that is not drawn cannot have the focus: it is brought into view first.
    const name = table.current!.querySelector<HTMLElement>(".grid-name")!.offsetWidth;
    shown.scrollTop = nearest(shown.scrollTop, row, shown.clientHeight - BAR);
    if (column >= 0) shown.scrollLeft = nearest(shown.scrollLeft, column, shown.clientWidth - name);
    moved.current = true;
    move({ row, column });
    look.current();
  };
  const keys = (event: KeyboardEvent) => {
    const link = event.target instanceof HTMLAnchorElement ? event.target : undefined;
    if (event.key === " " && link?.dataset.at) {
      event.preventDefault();
      return link.click();
    }
    const page = Math.max(1, Math.floor((box.current!.clientHeight - BAR) / CELL) - 2);
    const step = stepOf(event.key, page, sizes.columns);
    if (!step || event.altKey || event.metaKey) return;
    event.preventDefault();
    const far = event.ctrlKey && (event.key === "Home" || event.key === "End");
    const { row, column } = place.current;
    go({ row: far ? (event.key === "Home" ? 0 : sizes.rows) : row + step[0], column: column + step[1] });
  };
  const wordsAt = (target: EventTarget | null): [string, Place] | undefined => {
    const data = target instanceof Element ? target.closest<HTMLElement>("[data-at]")?.dataset.at : undefined;
    if (data === undefined) return undefined;
    const [row, column] = data.split(" ").map(Number) as [number, number];
    const [run, task] = [grid.runs[column], rows[row]];
    return task && [run ? wordsOfCell(grid, run, task) : task.name, { row, column }];
  };
  // More runs or fewer may have come since it was scrolled.
  const range = { ...scrolled, bottom: Math.min(scrolled.bottom, sizes.rows), right: Math.min(scrolled.right, sizes.columns) };
  // The one that the Tab key reaches is always in view.
  const spare = (hidden: boolean) => (hidden ? SPARE : 0);
  const stop = {
    row: within(at.row, range.top + spare(range.top > 0), range.bottom - spare(range.bottom < sizes.rows)),
    column: at.column < 0 ? -1 : within(at.column, range.left + spare(range.left > 0), range.right - spare(range.right < sizes.columns)),
  };
  return (
    <div class="grid-box" ref={box} onScroll={() => look.current()}>
      <div
        role="grid"
        class="grid"
        aria-label="Tasks by run"
        aria-rowcount={sizes.rows + 1}
        aria-colcount={sizes.columns + 1}
        tabIndex={-1}
        ref={table}
        onKeyDown={keys}
        onMouseOver={(event) => {
          const words = wordsAt(event.target)?.[0];
          if (words) say(words);
        }}
        onFocusIn={(event) => {
          const found = wordsAt(event.target);
          if (!found) return;
          say(found[0]);
          if (!moved.current) move(found[1]);
        }}
        style={{ gridTemplateRows: `${BAR}px ${sizes.rows * CELL}px` }}
      >
        <Heads grid={grid} left={range.left} right={range.right} say={say} />
        <div role="rowgroup" class="grid-body">
          {rows.slice(range.top, range.bottom).map((row, offset) => (
            <Row
              key={row.id}
              {...props}
              row={row}
              index={range.top + offset}
              left={range.left}
              right={range.right}
              stop={stop.row === range.top + offset ? stop.column : undefined}
              drawing={drawings.value}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

/** Return where it has to be scrolled to, one way, for a cell to be in view; where it is if it is in view. */
function nearest(scrolled: number, index: number, view: number): number {
  return Math.max(Math.min(scrolled, index * CELL), (index + 1) * CELL - view);
}

function stepOf(key: string, page: number, columns: number): [number, number] | undefined {
  const steps: Record<string, [number, number]> = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    PageUp: [-page, 0],
    PageDown: [page, 0],
    Home: [0, -columns],
    End: [0, columns],
  };
  return steps[key];
}

/** The runs, above the cells; while it is scrolled down they are not drawn anew. */
class Heads extends Component<{ grid: Grid; left: number; right: number; say: (text: string) => void }> {
  override shouldComponentUpdate(next: Heads["props"]): boolean {
    const { grid, left, right } = this.props;
    return next.grid !== grid || next.left !== left || next.right !== right;
  }

  override render() {
    const { grid, left, right, say } = this.props;
    return (
      <div role="row" class="grid-head" aria-rowindex={1}>
        <div role="columnheader" class="grid-name" aria-colindex={1}>
          Task
        </div>
        <Across left={left} right={right} all={grid.runs.length}>
          {grid.runs.slice(left, right).map((run, index) => (
            <Head key={run.run_id} grid={grid} run={run} column={left + index} say={say} />
          ))}
        </Across>
      </div>
    );
  }
}

/** Columns that are drawn, in the place of all. */
function Across(props: { left: number; right: number; all: number; children: ComponentChildren }) {
  const { left, right, all } = props;
  return (
    <div role="presentation" class="grid-across" style={{ marginLeft: `${left * CELL}px`, marginRight: `${(all - right) * CELL}px` }}>
      {props.children}
    </div>
  );
}

function Head(props: { grid: Grid; run: GridRunView; column: number; say: (text: string) => void }) {
  const { grid, run, column } = props;
  const before = grid.runs[column - 1];
  const most = useMemo(() => longestOf(grid), [grid]);
  const queued = between(run.created_at, run.started_at ?? run.ended_at) ?? 0;
  const whole = between(run.created_at, run.ended_at) ?? 0;
  const scale = (ms: number) => Math.min(1, ms / most) * (TALL);
  const other = before && before.version !== run.version;
  const words = `${run.state}, ${absolute(run.created_at)}, took ${duration(whole)}, v${run.version}: ${run.cause}`;
  return (
    <div role="columnheader" class={`grid-run s-${run.state} ${other ? "other" : ""}`} aria-colindex={column + 2}>
      <a
        href={to("runs", run.run_id)}
        tabIndex={-1}
        title={other ? `${words} (another version than the run before)` : words}
        aria-label={`Run ${run.run_id.slice(-8)}: ${words}`}
        onMouseEnter={() => props.say(words)}
      >
        <svg class="bars" width="10" height={TALL} aria-hidden="true">
          <rect x="1" y={TALL - Math.max(2, scale(whole))} width="8" height={Math.max(2, scale(whole))} />
          {scale(queued) > 1 && (
            <rect class="waited" x="1" y={TALL - scale(queued)} width="8" height={scale(queued)} />
          )}
        </svg>
        <Shape name={run.state} />
      </a>
    </div>
  );
}

const longest = new WeakMap<Grid, number>();

/** Return how long the run took that took longest, in milliseconds; one that lasts, until it was loaded. */
function longestOf(grid: Grid): number {
  let found = longest.get(grid);
  if (found === undefined) {
    const now = new Date().toISOString();
    found = Math.max(1, ...grid.runs.map((run) => between(run.created_at, run.ended_at ?? now) ?? 0));
    longest.set(grid, found);
  }
  return found;
}

interface RowProps extends Of {
  row: GridRow;
  index: number;
  left: number;
  right: number;
  /** The column that the Tab key reaches. */
  stop: number | undefined;
  /** Which of its drawings is in the colours of the page. */
  drawing: number;
}

const KEYS = ["grid", "row", "index", "left", "right", "stop", "drawing"] as const;

/** A row; while it is scrolled those that stay are not drawn anew. What it calls is the same then. */
class Row extends Component<RowProps> {
  private readonly signs = createRef<HTMLDivElement>();

  override shouldComponentUpdate(next: RowProps): boolean {
    return KEYS.some((key) => next[key] !== this.props[key]);
  }

  override componentDidMount() {
    this.draw();
  }

  override componentDidUpdate() {
    this.draw();
  }

  override componentWillUnmount() {
    releaseSigns(this.signs.current!);
  }

  private draw() {
    const { grid, row, left, right } = this.props;
    const states = grid.runs.slice(left, right).map((run) => stateOf(grid, run, row, tellingOf));
    drawSigns(this.signs.current!, states, row.mapped || row.group);
  }

  override render() {
    const { grid, row, index, left, right, stop } = this.props;
    return (
      <div role="row" class="grid-row" aria-rowindex={index + 2} style={{ top: `${index * CELL}px` }}>
        <Name {...this.props} />
        <Across left={left} right={right} all={grid.runs.length}>
          {grid.runs.slice(left, right).map((run, offset) => (
            <div key={run.run_id} role="gridcell" class="cell" aria-colindex={left + offset + 2}>
              <a
                {...linkOf(grid, run, row)}
                data-at={`${index} ${left + offset}`}
                tabIndex={stop === left + offset ? 0 : -1}
                aria-label={wordsOfCell(grid, run, row)}
              />
            </div>
          ))}
          <div class="signs" aria-hidden="true" ref={this.signs} />
        </Across>
      </div>
    );
  }
}

function Name({ row, index, stop, folded, toggle }: RowProps) {
  const group = row.id.slice("group ".length);
  const own = { "data-at": `${index} -1`, tabIndex: stop === -1 ? 0 : -1, style: { marginLeft: `${row.depth * 12}px` } };
  return (
    <div role="rowheader" class={`grid-name ${row.present ? "" : "gone"}`} aria-colindex={1} title={row.name}>
      {row.group ? (
        <button type="button" class="quiet" {...own} aria-expanded={!folded(group)} onClick={() => toggle(group)}>
          <span class="cut">
            {folded(group) ? "▸" : "▾"} {row.name}
          </span>
          <span class="faint">{row.places.length}</span>
        </button>
      ) : (
        <span {...own}>
          {row.label}
          {row.mapped && <span class="faint"> ×</span>}
        </span>
      )}
    </div>
  );
}

function linkOf(grid: Grid, run: GridRunView, row: GridRow): { href?: string } {
  const state = stateOf(grid, run, row, tellingOf);
  if (state === undefined) return {};
  if (row.group) return { href: to("runs", run.run_id) };
  const many = row.mapped && Boolean(run.counts?.[row.places[0]!]);
  return {
    href: many
      ? `${to("runs", run.run_id)}?task=${encodeURIComponent(row.name)}&state=${state}`
      : to("runs", run.run_id, "tasks", row.name),
  };
}

const names = new WeakMap<GridRunView, string>();

/** Return a run in words, which are made once for all of its cells. */
function nameOf(run: GridRunView): string {
  let found = names.get(run);
  if (found === undefined) {
    const made = new Date(run.created_at).toISOString().slice(0, 19).replace("T", " ");
    names.set(run, (found = `run ${run.run_id.slice(-8)} of ${made} UTC`));
  }
  return found;
}

function wordsOfCell(grid: Grid, run: GridRunView, row: GridRow): string {
  const state = stateOf(grid, run, row, tellingOf);
  const several = state !== undefined && (row.mapped || row.group);
  const what = several ? wordsOf(cellOf(grid, run, row)!) : (state?.replaceAll("_", " ") ?? "not in its version");
  return `${row.name}, ${nameOf(run)}: ${what}`;
}
