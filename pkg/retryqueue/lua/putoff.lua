-- Changes when members are due again whose score is still the caller's lease.
-- KEYS: due. ARGV: end of the lease, then for each member its name and the new due time in ms.
for arg = 2, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[arg])
  if score and tonumber(score) == tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], 'XX', ARGV[arg + 1], ARGV[arg])
  end
end
return 1
