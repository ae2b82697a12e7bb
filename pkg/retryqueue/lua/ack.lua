-- Removes members whose score is still the caller's lease; one that was scheduled or claimed again since stays.
-- KEYS: due, then for each member its bucket. ARGV: end of the lease, then the members. Returns how many were removed.
local removed = 0
for k = 2, #KEYS do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[k])
  if score and tonumber(score) == tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[1], ARGV[k])
    redis.call('HDEL', KEYS[k], ARGV[k])
    removed = removed + 1
  end
end
return removed
