-- Changes when members are due whose score is still what the caller thinks.
-- KEYS: due. ARGV: for each member its name, the score it must have, and the new due time in ms. Returns how many were changed.
local moved = 0
for arg = 1, #ARGV, 3 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[arg])
  if score and tonumber(score) == tonumber(ARGV[arg + 1]) then
    redis.call('ZADD', KEYS[1], 'XX', ARGV[arg + 2], ARGV[arg])
    moved = moved + 1
  end
end
return moved
