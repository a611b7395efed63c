/** Places in the live stream: `LOG-ROW-INDEX`, as ids of messages and `Psf-Place` have them. */

function parts(place: string): [log: string, row: number, index: number] {
  const [log = "", row, index] = place.split("-");
  return [log, Number(row), Number(index)];
}

/** Whether a message is part of what is true up to a place; never if that is of another log. */
export function isKnown(message: string | undefined, place: string | undefined): boolean {
  if (!message || !place) return false;
  const [log, row, index] = parts(message);
  const [ownLog, ownRow, ownIndex] = parts(place);
  // The id of a message is the place behind it.
  return log === ownLog && (row < ownRow || (row === ownRow && index <= ownIndex));
}

/** Return the earlier one of two places; null if one is unknown, or they are of two logs. */
export function earlier(one: string | null, other: string | null): string | null {
  if (!one || !other || parts(one)[0] !== parts(other)[0]) return null;
  return isKnown(one, other) ? one : other;
}
