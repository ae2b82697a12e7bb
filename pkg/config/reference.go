package config

import (
	"fmt"
	"slices"
	"strings"
)

// Use is a command and the struct that holds its configuration.
type Use struct {
	Command string
	Target  any // a pointer to the struct
}

// All lists the variables of all uses once, by name.
func All(uses []Use) []Variable {
	var all []Variable
	for _, use := range uses {
		all = append(all, Variables(use.Target)...)
	}
	slices.SortFunc(all, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b Variable) bool { return a.Name == b.Name })
}

// Reference is a Markdown table of all variables, by name: what each does, its default, its type, and the commands that
// read it ("all" where every command does).
func Reference(uses []Use, help map[string]string) string {
	readers := map[string][]string{}
	for _, use := range uses {
		for _, v := range Variables(use.Target) {
			if !slices.Contains(readers[v.Name], use.Command) {
				readers[v.Name] = append(readers[v.Name], use.Command)
			}
		}
	}
	var b strings.Builder
	b.WriteString("| name | default | type | read by | |\n|---|---|---|---|---|\n")
	for _, v := range All(uses) {
		by := "all"
		if len(readers[v.Name]) < len(uses) {
			by = strings.Join(readers[v.Name], ", ")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", v.Name, code(v.Default), v.Type, by, help[v.Name])
	}
	return b.String()
}

func code(value string) string {
	if value == "" {
		return "–"
	}
	return "`" + value + "`"
}
