/** What tabs and the worker with the stream say to each other. */

/** For every field that is given, one of its values must match. */
export interface Filter {
  kinds: readonly string[];
  dags?: readonly string[];
  runs?: readonly string[];
}

export interface Change {
  kind: string;
  dag_id?: string | null;
  run_id?: string | null;
  task_id?: string | null;
  map_index?: number | null;
  state?: string;
  dataset?: string;
  event_id?: string;
  time: string;
  /** The place in the stream behind it. */
  id?: string;
}

/** `place`: from where on the tab has to hear of changes, if the stream has not begun yet. */
export type ToWorker = { filter: Filter | null; place?: string | null } | { bye: true };

export type FromWorker =
  | { changes: Change[] }
  | { reset: true }
  | { lost: number | null }; // since when there is no connection

export function passes(filter: Filter, change: Change): boolean {
  return (
    filter.kinds.includes(change.kind) &&
    (!filter.dags || (change.dag_id != null && filter.dags.includes(change.dag_id))) &&
    (!filter.runs || (change.run_id != null && filter.runs.includes(change.run_id)))
  );
}

/** Return a filter that passes all that any of several passes. */
export function union(filters: readonly Filter[]): Filter | null {
  if (!filters.length) return null;
  const all = <T>(get: (filter: Filter) => readonly T[] | undefined): T[] | undefined => {
    const found = filters.map(get);
    if (found.some((each) => each === undefined)) return undefined;
    return [...new Set(found.flatMap((each) => each!))].sort();
  };
  const made: Filter = { kinds: all((each) => each.kinds)! };
  const dags = all((each) => each.dags);
  const runs = all((each) => each.runs);
  // The server takes 100 values of each; beyond that everything comes, and is filtered here.
  if (dags && dags.length <= 100) made.dags = dags;
  if (runs && runs.length <= 100) made.runs = runs;
  return made;
}
