package testenv

import (
	"strings"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
)

func embeddedKafka() (string, func(), error) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return "", nil, err
	}
	return strings.Join(cluster.ListenAddrs(), ","), cluster.Close, nil
}

func embeddedRedis() (string, func(), error) {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	return "redis://" + server.Addr() + "/0", server.Close, nil
}
