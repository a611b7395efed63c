/** From a place of a scrollbar to a row and back, also where all rows are higher than a browser draws. */

/** Firefox draws no element that is higher than 17.9 million pixels. */
const MOST = 16_000_000;

/** Return how high what scrolls is. */
export function heightOf(rows: number, row: number): number {
  return Math.min(MOST, rows * row);
}

/** Return the first row that is shown when it is scrolled to `top`. */
export function firstOf(top: number, rows: number, view: number, row: number): number {
  const whole = heightOf(rows, row);
  const most = Math.max(0, rows - Math.floor(view / row));
  if (whole < MOST) return Math.min(most, Math.floor(top / row));
  return Math.min(most, Math.round((top / (whole - view)) * most));
}

/** Return where it has to be scrolled to for a row to be the first one. */
export function placeOf(first: number, rows: number, view: number, row: number): number {
  const whole = heightOf(rows, row);
  const most = Math.max(1, rows - Math.floor(view / row));
  if (whole < MOST) return first * row;
  return (Math.min(first, most) / most) * (whole - view);
}
