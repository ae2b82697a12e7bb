package config

import (
	"encoding"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// Variable is one setting.
type Variable struct {
	Name     string
	Default  string
	Type     string // in words: "duration", "list of text"
	Required bool
}

// Variables lists the settings of the struct that target points to, in the order of the fields.
func Variables(target any) []Variable {
	return variables(reflect.TypeOf(target).Elem(), "")
}

func variables(t reflect.Type, prefix string) []Variable {
	var found []Variable
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		name, rest, _ := strings.Cut(field.Tag.Get("env"), ",")
		switch {
		case name == "-":
		case name != "":
			found = append(found, Variable{
				Name:     prefix + name,
				Default:  field.Tag.Get("envDefault"),
				Type:     typeName(field.Type),
				Required: strings.Contains(rest, "required") || strings.Contains(rest, "notEmpty"),
			})
		case field.Type.Kind() == reflect.Struct:
			found = append(found, variables(field.Type, prefix+field.Tag.Get("envPrefix"))...)
		}
	}
	return found
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[slog.Level]():
		return "debug, info, warn or error"
	case reflect.TypeFor[netip.Prefix]():
		return "CIDR"
	}
	switch {
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return strings.ToLower(t.Name())
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number"
	case reflect.Map:
		return "list of name:value"
	default:
		return t.String()
	}
}

var secretName = regexp.MustCompile(`(_PASSWORD|_SECRET|_TOKEN|_KEY|_KEYS|_PEPPER)$`)

// Secret reports whether the value must not be shown at all.
func (v Variable) Secret() bool { return secretName.MatchString(v.Name) }

// FromFile reports whether the value may come from the file that NAME_FILE names: a secret, or a URL, which may contain one.
func (v Variable) FromFile() bool { return v.Secret() || strings.HasSuffix(v.Name, "_URL") }

var passwordWord = regexp.MustCompile(`(?i)(password=)[^\s&]+`)

// Show is the value as it may be printed and logged.
func (v Variable) Show(value string) string {
	switch {
	case value == "":
		return ""
	case v.Secret():
		return "[secret]"
	case !v.FromFile():
		return value
	}
	u, err := url.Parse(value)
	if err != nil {
		return "[unreadable]"
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), "REDACTED")
		value = u.String()
	}
	return passwordWord.ReplaceAllString(value, "${1}REDACTED")
}

// Setting is a variable with the value in force.
type Setting struct {
	Variable
	Value  string // as it may be shown
	Source string // "environment", "file" or "default"
}

// Settings lists what is in force for the struct that target points to. It reads no files.
func Settings(target any, environ Environment) []Setting {
	all := Variables(target)
	settings := make([]Setting, 0, len(all))
	for _, v := range all {
		s := Setting{Variable: v, Value: v.Show(v.Default), Source: "default"}
		if value := environ[v.Name]; value != "" {
			s.Value, s.Source = v.Show(value), "environment"
		} else if path := environ[v.Name+fileSuffix]; path != "" && v.FromFile() {
			s.Value, s.Source = path, "file"
		}
		settings = append(settings, s)
	}
	return settings
}
