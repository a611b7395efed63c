/** The signs of a row of cells as a few paths: two a state, however many cells there are. */

export const CELL = 26;
const EDGE = 5; // around a sign, which is drawn on 16 × 16
const RING = "M13 6A7 7 0 1 1 13 20A7 7 0 1 1 13 6";
const FOOT = "M6 23.5H20"; // under what stands for several

/** Which numbers of a command of a path are across, and which are down. */
const AXES: Record<string, string> = { M: "xy", L: "xy", H: "x", V: "y", A: "-----xy" };

/** Return a path elsewhere. */
export function moved(path: string, across: number, down: number): string {
  return path.replace(/([MLHVA])([^a-zA-Z]*)/g, (_, command: string, text: string) => {
    const axes = AXES[command]!;
    const numbers = (text.match(/-?[\d.]+/g) ?? []).map(Number);
    const by = (index: number) => ({ x: across, y: down })[axes[index % axes.length]!] ?? 0;
    return command + numbers.map((each, index) => each + by(index)).join(" ");
  });
}

export interface Signs {
  state: string;
  rings: string;
  marks: string;
}

const known = new Map<string, string>();

function at(path: string, column: number, edge: number): string {
  const key = `${column} ${edge} ${path}`;
  let found = known.get(key);
  if (found === undefined) known.set(key, (found = moved(path, column * CELL + edge, edge)));
  return found;
}

/** Return what is drawn for the states of cells, the first of which is at the left.
 *
 *  @param paths The sign of each state, within its ring.
 *  @param several Whether each cell stands for several tasks.
 */
export function signsOf(states: readonly (string | undefined)[], paths: Readonly<Record<string, string>>, several: boolean): Signs[] {
  const found = new Map<string, Signs>();
  states.forEach((state, column) => {
    if (state === undefined) return;
    let signs = found.get(state);
    if (!signs) found.set(state, (signs = { state, rings: "", marks: "" }));
    signs.rings += at(RING, column, 0);
    signs.marks += at(paths[state] ?? "M8 8h.01", column, EDGE);
    if (several) signs.rings += at(FOOT, column, 0);
  });
  return [...found.values()];
}
