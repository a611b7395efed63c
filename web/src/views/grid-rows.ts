/** The rows of a grid: tasks, and groups that fold; no drawing here. */
import type { RunsGrid as Grid, GridRunView } from "#routes";

export interface GridRow {
  id: string;
  name: string;
  /** Its name without those of the groups under which it stands. */
  label: string;
  depth: number;
  /** Places of the tasks that it stands for: one, or those of a group. */
  places: readonly number[];
  group: boolean;
  mapped: boolean;
  present: boolean;
}

/** Return the rows, those in a folded group left out; a group stands where its first task does. */
export function rowsOf(grid: Grid, folded: (group: string) => boolean, text = ""): GridRow[] {
  const rows: GridRow[] = [];
  const wanted = text.toLowerCase();
  if (wanted) {
    grid.tasks.forEach((task, place) => {
      if (task.task_id.toLowerCase().includes(wanted)) rows.push(rowOf(grid, place, 0));
    });
    return rows;
  }
  const add = (places: readonly number[], depth: number) => {
    const seen = new Set<string>();
    for (const place of places) {
      const group = grid.tasks[place]!.groups?.[depth];
      if (group === undefined) {
        rows.push(rowOf(grid, place, depth));
        continue;
      }
      if (seen.has(group)) continue;
      seen.add(group);
      const path = grid.tasks[place]!.groups!.slice(0, depth + 1).join("/");
      const inside = places.filter((each) => grid.tasks[each]!.groups?.[depth] === group);
      const present = inside.some((each) => grid.tasks[each]!.present !== false);
      rows.push({ id: `group ${path}`, name: group, label: group, depth, places: inside, group: true, mapped: false, present });
      if (!folded(path)) add(inside, depth + 1);
    }
  };
  add(
    grid.tasks.map((_, place) => place),
    0,
  );
  return rows;
}

function rowOf(grid: Grid, place: number, depth: number): GridRow {
  const task = grid.tasks[place]!;
  const above = depth ? `${task.groups!.slice(0, depth).join(".")}.` : "";
  return {
    id: task.task_id,
    name: task.task_id,
    label: task.task_id.startsWith(above) ? task.task_id.slice(above.length) : task.task_id,
    depth,
    places: [place],
    group: false,
    mapped: Boolean(task.mapped),
    present: task.present !== false,
  };
}

/** Return the states of a cell with their counts; undefined where the run's version has no such task. */
export function cellOf(grid: Grid, run: GridRunView, row: GridRow): Record<string, number> | undefined {
  const counts: Record<string, number> = {};
  let any = false;
  for (const place of row.places) {
    const sign = run.marks[place];
    if (sign === undefined || sign === " ") continue;
    any = true;
    if (sign === "+") {
      for (const [state, count] of Object.entries(run.counts?.[place] ?? {})) {
        counts[state] = (counts[state] ?? 0) + count;
      }
    } else {
      const state = grid.states[Number.parseInt(sign, 36)] ?? "none";
      counts[state] = (counts[state] ?? 0) + 1;
    }
  }
  return any ? counts : undefined;
}

/** Return the state that a cell shows; undefined where the run's version has no such task.
 *
 *  @param telling Chooses the state of several.
 */
export function stateOf(
  grid: Grid,
  run: GridRunView,
  row: GridRow,
  telling: (counts: Record<string, number>) => string,
): string | undefined {
  if (row.places.length === 1) {
    const sign = run.marks[row.places[0]!];
    if (sign === undefined || sign === " ") return undefined;
    if (sign !== "+") return grid.states[Number.parseInt(sign, 36)] ?? "none";
  }
  const counts = cellOf(grid, run, row);
  return counts && telling(counts);
}
