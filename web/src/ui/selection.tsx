/** Rows that are selected, by checkbox or by the key `x`; the address has them, as long as they are few. */
import { useState } from "preact/hooks";
import { address, setQuery } from "../core/router";

export interface Selection {
  chosen: ReadonlySet<string>;
  toggle: (id: string) => void;
  set: (ids: readonly string[]) => void;
}

const NAME = "chosen";
const MOST = 50; // addresses get too long otherwise

export function useSelection(): Selection {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(address.peek().query.getAll(NAME)));
  const set = (ids: readonly string[]) => {
    setChosen(new Set(ids));
    setQuery({ [NAME]: ids.length > MOST ? [] : [...ids] });
  };
  return {
    chosen,
    toggle: (id) => set(chosen.has(id) ? [...chosen].filter((each) => each !== id) : [...chosen, id]),
    set,
  };
}
