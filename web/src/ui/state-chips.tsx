/** A filter of states, which stands in the address. */
import { setQuery } from "../core/router";
import { State } from "./parts";

/** A chip a state, with a count where one is given; pressed are those that are chosen. */
export function StateChips(props: {
  of: readonly (readonly [state: string, count?: number])[];
  chosen: readonly string[];
}) {
  const { chosen } = props;
  return (
    <div class="chips" role="group" aria-label="States">
      {props.of.map(([state, count]) => (
        <button
          key={state}
          type="button"
          class="chip"
          aria-pressed={chosen.includes(state)}
          onClick={() =>
            setQuery({ state: chosen.includes(state) ? chosen.filter((each) => each !== state) : [...chosen, state] })
          }
        >
          <State name={state} />
          {count !== undefined && ` ${count}`}
        </button>
      ))}
    </div>
  );
}
