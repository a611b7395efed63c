/** Places in the stream: a snapshot and what follows its place are the state. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { earlier, isKnown } from "../src/live/place.ts";

const places = ["a-1-0", "a-1-2", "a-2-0", "a-10-1", "b-1-0"];

test("what is known up to a place is what does not come after it", () => {
  for (const message of places) {
    for (const place of places) {
      const [one, other] = [message, place].map((each) => each.split("-"));
      const later = Number(one![1]) - Number(other![1]) || Number(one![2]) - Number(other![2]);
      assert.equal(isKnown(message, place), one![0] === other![0] && later <= 0);
    }
  }
  assert.ok(!isKnown(undefined, "a-1-0") && !isKnown("a-1-0", undefined));
});

test("the earlier of two places is known at both", () => {
  for (const one of places) {
    for (const other of places) {
      const found = earlier(one, other);
      if (one[0] !== other[0]) assert.equal(found, null);
      else assert.ok(isKnown(found!, one) && isKnown(found!, other) && (found === one || found === other));
    }
  }
});
