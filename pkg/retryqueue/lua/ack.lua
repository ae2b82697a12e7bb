-- Removes members whose score is still the caller's lease; one that was scheduled or claimed again since stays.
-- KEYS: due, then for each member its bucket. ARGV: end of the lease, then the members. Returns how many were removed.
local mine = {}
for i, score in ipairs(redis.call('ZMSCORE', KEYS[1], unpack(ARGV, 2))) do
  if score and tonumber(score) == tonumber(ARGV[1]) then
    mine[#mine + 1] = ARGV[i + 1]
    redis.call('HDEL', KEYS[i + 1], ARGV[i + 1])
  end
end
return #mine > 0 and redis.call('ZREM', KEYS[1], unpack(mine)) or 0
