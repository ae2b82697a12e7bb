-- Changes when members are due that are due when the caller thinks.
-- KEYS: due. ARGV: for each member its name, the ms that it must be due in, and the new due time in ms. Returns how many were changed.
local moved = 0
for arg = 1, #ARGV, 3 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[arg])
  if score and math.floor(tonumber(score)) == tonumber(ARGV[arg + 1]) then
    redis.call('ZADD', KEYS[1], 'XX', ARGV[arg + 2], ARGV[arg])
    moved = moved + 1
  end
end
return moved
